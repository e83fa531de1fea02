"""The label of a package: what it is for (its archive section) or what it is (its role among Debian's tags)."""

from __future__ import annotations

from collections.abc import Callable

from recipes.package_topics.descriptions import Package

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

# https://wiki.debian.org/Debtags, facet `role`; other roles (metapackage, dummy, source, ...) are nobody's to guess.
ROLE6: dict[str, tuple[str, ...]] = {
    "program": ("program",),
    "shared-lib": ("shared-lib",),
    "devel-lib": ("devel-lib",),
    "data": ("app-data", "data"),
    "documentation": ("documentation", "examples"),
    "plugin": ("plugin",),
}

# What a task's labels are merged from.
TASKS: dict[str, dict[str, tuple[str, ...]]] = {"topic10": TOPIC10, "role6": ROLE6}


def labeller(task: str) -> Callable[[Package], str | None]:
    """Gives a package its label; None where it has none, or more than one role."""
    merged = {name: label for label, names in TASKS[task].items() for name in names}
    if task == "topic10":
        return lambda package: merged.get(package.section)

    def label_of(package: Package) -> str | None:
        labels = {merged.get(role) for role in package.roles}
        return labels.pop() if len(labels) == 1 else None

    return label_of
