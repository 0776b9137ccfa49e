"""A TOML file with the line of every key, and with all that is wrong with it at once.

``tomllib`` tells no lines, and stops at the first fault. But it also reads single statements (a
table's header, or a key and its value), which tells where each one begins and which keys are in it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

Location = tuple[str | int, ...]
"""The keys that lead to a value; a number is a place in an array of tables."""

_AT_END = "(at end of document)"
_WHERE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong in a ``line``, or with a ``key`` ("" where no key can be named)."""

    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.key}: {self.text}" if self.key else (
            f"line {self.line}: {self.text}"
        )  # fmt: skip


@dataclass
class Document:
    """What a TOML file holds, as far as it can be read; ``faults`` says what cannot."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, where: Location) -> int:
        """The line of a key; of the innermost table around it where the key is missing."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def fault(self, where: Location, text: str) -> None:
        """Note what is wrong with the value at ``where``."""
        self.faults.append(Fault(self.line(where), key_text(where), text))


def key_text(where: Location) -> str:
    """A location as it is written in a file: "[[models]] input.x"."""
    table, rest = "", list(where)
    if len(where) > 1 and isinstance(where[1], int):
        table, rest = f"[[{where[0]}]]", list(where[2:])
    key = ".".join(str(part) for part in rest if isinstance(part, str))
    return " ".join(filter(None, (table, key)))


def read_toml(text: str) -> Document:
    """Read a TOML file statement by statement; nothing is raised."""
    made = Document()
    lines = text.replace("\r\n", "\n").split("\n")
    table, at, recovering = made.values, 0, False
    where: Location = ()
    explicit: set[Location] = set()
    while at < len(lines):
        end, parsed, error = _statement(lines, at)
        if parsed is None:
            if not recovering:
                found = _WHERE.search(error)
                line = at + int(found[1] or 1) if found else at + 1
                made.faults.append(Fault(line, "", f"this is no TOML: {_WHERE.sub('', error)}"))
            # What follows the beginning of a list that does not end is most often a part of it.
            at, recovering = at + 1, recovering or end > at + 1
            continue
        recovering = False
        if lines[at].lstrip().startswith("["):
            where, table = _header(made, parsed, explicit, at + 1)
        else:
            _merge(made, table, parsed, where, at + 1)
        at = end
    if not made.faults:
        try:
            made.values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as fault:  # of several statements together
            found = _WHERE.search(str(fault))
            line = int(found[1] or len(lines)) if found else 1
            made.faults.append(Fault(line, "", f"this is no TOML: {_WHERE.sub('', str(fault))}"))
    return made


def _statement(lines: list[str], start: int) -> tuple[int, dict[str, Any] | None, str]:
    """Where the statement that begins at ``start`` ends, what it says, and why it says nothing."""
    for end in range(start + 1, len(lines) + 1):
        try:
            return end, tomllib.loads("\n".join(lines[start:end])), ""
        except tomllib.TOMLDecodeError as error:
            if _AT_END not in str(error) or end == len(lines):
                return end, None, str(error)
    raise AssertionError("there is a line at the start")


def _header(
    made: Document, parsed: dict[str, Any], explicit: set[Location], line: int
) -> tuple[Location, dict[str, Any]]:
    """The table that a header begins, and where it is."""
    keys: list[str] = []
    inner: Any = parsed
    while isinstance(inner, dict) and inner:
        ((key, inner),) = inner.items()
        keys.append(key)
    many = isinstance(inner, list)
    here: dict[str, Any] = made.values
    where: Location = ()
    for key in keys[:-1]:
        here, where = _inside(made, here, key, where, line)
    last = (*where, keys[-1])
    if many:
        tables = here.setdefault(keys[-1], [])
        if not isinstance(tables, list):
            made.faults.append(Fault(line, key_text(last), "it is no array of tables above"))
            return last, {}
        tables.append({})
        made.lines.setdefault(last, line)
        place = (*last, len(tables) - 1)
        made.lines[place] = line
        return place, tables[-1]
    if last in explicit or (keys[-1] in here and not isinstance(here[keys[-1]], dict)):
        made.faults.append(
            Fault(line, key_text(last), f"it is there already, in line {made.line(last)}")
        )
        return last, {}
    explicit.add(last)
    made.lines.setdefault(last, line)
    table: dict[str, Any] = here.setdefault(keys[-1], {})
    return last, table


def _inside(
    made: Document, here: dict[str, Any], key: str, where: Location, line: int
) -> tuple[dict[str, Any], Location]:
    """The table ``key`` of ``here``: of an array of tables the last one."""
    where = (*where, key)
    inner = here.setdefault(key, {})
    made.lines.setdefault(where, line)
    if isinstance(inner, list) and inner and isinstance(inner[-1], dict):
        return inner[-1], (*where, len(inner) - 1)
    return (inner, where) if isinstance(inner, dict) else ({}, where)


def _merge(
    made: Document, table: dict[str, Any], parsed: dict[str, Any], where: Location, line: int
) -> None:
    for key, value in parsed.items():
        place = (*where, key)
        if key not in table:
            made.lines[place] = line
            table[key] = {} if isinstance(value, dict) else value
        elif not (isinstance(value, dict) and isinstance(table[key], dict)):
            made.faults.append(
                Fault(line, key_text(place), f"it is there already, in line {made.line(place)}")
            )
            continue
        if isinstance(value, dict):
            _merge(made, table[key], value, place, line)
