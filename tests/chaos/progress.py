"""How far a run is, read from the histories while they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

APPLIED = re.compile(rb'^\{"event":"applied","job":"(?P<job>[^"]+)",.*?"step":(?P<step>\d+)')
LAST_BYTES = 4096


@dataclass
class Progress:
    """The step that has gone furthest, over all processes of all times: what a killed worker had applied counts."""

    job: str
    folder: Path
    steps: int = 0
    # Path -> its size when it was read last.
    _read: dict[Path, int] = field(default_factory=dict)

    def look(self) -> bool:
        """Whether any worker has applied a step since the last look."""
        moved = False
        for path in self.folder.iterdir():
            size = path.stat().st_size
            before = self._read.get(path, 0)
            if size == before:
                continue
            self._read[path] = size
            with path.open("rb") as file:
                file.seek(max(before, size - LAST_BYTES))
                for line in reversed(file.read(LAST_BYTES).split(b"\n")):
                    found = APPLIED.match(line)
                    if found and found["job"].decode() == self.job:
                        self.steps = max(self.steps, int(found["step"]) + 1)
                        moved = True
                        break
        return moved
