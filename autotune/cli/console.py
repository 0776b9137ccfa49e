"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from typing import Any


class Interrupted(Exception):
    """A command was interrupted and has a sentence of its own about it."""


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on stdout."""
    print(json.dumps(value, indent=2, sort_keys=True))


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Collection[str] = (),
) -> None:
    """Print a table on stdout; all columns but the first and those of ``texts`` hold numbers."""
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        left = index == 0 or column in texts
        made.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(made)
