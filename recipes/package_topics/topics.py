"""The label of a package: its archive section, merged to a handful of topics."""

from __future__ import annotations

# Sections that say how a package is made and not what it is for (libs, python, doc, utils, misc, ...) have no topic.
TOPIC10: dict[str, tuple[str, ...]] = {
    "net": ("net", "web", "httpd", "mail", "comm", "news"),
    "devel": ("devel", "vcs", "embedded"),
    "science": ("science", "math", "electronics", "hamradio", "education"),
    "desktop": ("x11", "gnome", "kde", "xfce", "gnustep"),
    "admin": ("admin", "kernel", "shells", "database", "otherosfs"),
    "text": ("text", "editors", "tex"),
    "games": ("games",),
    "av": ("sound", "video"),
    "l10n": ("localization", "fonts"),
    "graphics": ("graphics",),
}

TASKS: dict[str, dict[str, tuple[str, ...]]] = {"topic10": TOPIC10}


def labels_by_section(task: str) -> dict[str, str]:
    return {section: label for label, sections in TASKS[task].items() for section in sections}
