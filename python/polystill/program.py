"""What the programs of this package share: how they are called and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from polystill.errors import PolystillError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Prints examples as they stand; ends with 2 for wrong usage."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=formatter)


def comma_list(text: str) -> list[str]:
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of names between commas")
    return values


def run(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], int], arguments: list[str] | None) -> int:
    given = parser.parse_args(arguments)
    try:
        return work(given)
    except (PolystillError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except ImportError as error:
        remedy = "install it, or all that Polystill's Python needs, with `pip install ./python`"
        print(f"{parser.prog}: {error}: {remedy}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
