"""Reads apt's lists: RFC 822 paragraphs, joined on (Package, Description-md5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Key = tuple[str, str]  # package, MD5 of its English description


@dataclass(frozen=True)
class Package:
    name: str
    source: str
    section: str
    description_md5: str
    roles: frozenset[str] = frozenset()  # of Debian's tags

    @property
    def key(self) -> Key:
        return self.name, self.description_md5


ROLE = re.compile(r"\brole::([a-z-]+)")


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """Each paragraph as field -> value; the lines of a folded value are joined by a newline, without their indent."""
    fields: dict[str, str] = {}
    name = ""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line == "\n":
                if fields:
                    yield fields
                fields = {}
            elif line[0] in " \t":
                fields[name] += "\n" + line[1:].rstrip("\n")
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
    if fields:
        yield fields


def read_packages(path: Path) -> list[Package]:
    """Packages in the order of their names, the first version of each."""
    packages: dict[str, Package] = {}
    for fields in stanzas(path):
        name = fields["Package"]
        source = fields.get("Source", name).split(" ")[0]
        section = fields.get("Section", "").rpartition("/")[2]
        roles = frozenset(ROLE.findall(fields.get("Tag", "")))
        packages.setdefault(name, Package(name, source, section, fields.get("Description-md5", ""), roles))
    return [packages[name] for name in sorted(packages)]


def read_descriptions(path: Path, language: str) -> dict[Key, str]:
    """Descriptions of one list: the short one in the first line, the long one below, '.' for an empty line."""
    field = f"Description-{language}"
    return {(s["Package"], s["Description-md5"]): s[field] for s in stanzas(path) if field in s}
