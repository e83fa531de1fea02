"""Makes report.html of a finished run: python -m polystill_report RUN_FOLDER."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

REMEDY = "install Polystill's requirements.txt into one Python and name that Python in POLYSTILL_PYTHON"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="polystill report", description=__doc__.split(":")[0])
    parser.add_argument("folder", metavar="RUN_FOLDER", type=Path, help="output folder of a finished run")
    folder: Path = parser.parse_args(arguments).folder
    try:
        from polystill_report.page import ReportError, render
    except ImportError as error:
        print(f"polystill report: {error}: {REMEDY}", file=sys.stderr)
        return 1
    try:
        html = render(folder)
        path = folder / "report.html"
        temporary = folder / f".report.html.tmp-{os.getpid()}"
        try:
            temporary.write_text(html, "utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ReportError) as error:
        print(f"polystill report: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
