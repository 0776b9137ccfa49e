"""Exported lines bring everything back; what is damaged or forged is refused line by line."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.measure.outcome import BuildFailed, WrongResult
from autotune.search.recording import target_row
from search_spaces.task import digest_of as contract_digest
from tests.unit.database_samples import (
    OTHER_TARGET,
    OTHER_TASK,
    TARGET,
    TASK,
    measured,
    open_with_run,
    record,
)
from tuning_db import lines
from tuning_db.database import TuningDatabase
from tuning_db.errors import BadExchangeFile
from tuning_db.exchange import Imported, export_lines, import_lines, merge
from tuning_db.pruning import prune


def filled(path: Path, tiles: range = range(5)) -> TuningDatabase:
    """A database with measured, re-measured and failed records."""
    database, run = open_with_run(path)
    for tile in tiles:
        database.add(record(tile, measured(1e-3 * (tile + 1)), run))
    first = tiles.start
    database.add(record(first, measured(1.1e-3), run, final=True))
    database.add(record(first, measured(1.2e-3), run, final=True))
    database.add(record(first, BuildFailed("build", "no\tgood\x1b[2J"), run, task=OTHER_TASK))
    database.add(record(first + 1, WrongResult(math.inf, 1e-5, "NaN"), run, task=OTHER_TASK))
    database.finish_run(run)
    return database


def exported(database: TuningDatabase) -> list[str]:
    return list(export_lines(database))


def taken(database: TuningDatabase, text: list[str]) -> Imported:
    return import_lines(database, io.BytesIO("\n".join(text).encode()))


def empty(path: Path) -> TuningDatabase:
    return TuningDatabase.open(path)


def without_ids(database: TuningDatabase) -> list[Any]:
    rows = [replace(row, id=None) for row in database.records()]
    return sorted(rows, key=lambda row: (row.run, row.workload, row.candidate, row.time))


def test_an_export_brings_everything_back_and_again_changes_nothing(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        text = exported(one)
        result = taken(two, text)
        assert (result.records, result.refused) == (9, 0)
        assert without_ids(two) == without_ids(one)
        assert exported(two) == text
        best = two.best(TASK.workload.key, TARGET.digest)
        assert best is not None and best.final and best.seconds == 1.1e-3
        again = taken(two, text)
        assert (again.records, again.others, again.refused) == (0, 0, 0)
        assert exported(two) == text
        assert two.stats().models[0].name == "two-layers"


def test_merging_is_associative_idempotent_and_in_any_order_gives_the_same(tmp_path: Path) -> None:
    parts = []
    for number, target in enumerate((TARGET, TARGET, OTHER_TARGET)):
        database, run = open_with_run(tmp_path / f"{number}.db", target)
        for tile in range(number, number + 4):
            outcome = measured(1e-3 * (tile + 1) / (number + 1))
            database.add(record(tile, outcome, run, target=target))
        parts.append(database)
    a, b, c = parts

    def merged(name: str, *sources: TuningDatabase) -> TuningDatabase:
        into = empty(tmp_path / name)
        for source in sources:
            assert merge(into, source).refused == 0
        return into

    left = merged("left.db", merged("ab.db", a, b), c)
    right = merged("right.db", a, merged("bc.db", b, c))
    back = merged("back.db", c, b, a, b)
    assert exported(left) == exported(right) == exported(back)
    assert left.count() == 12
    assert len({row.run for row in left.records()}) == 3
    only = left.best(TASK.workload.key, OTHER_TARGET.digest)
    assert only is not None and only.target == OTHER_TARGET.digest
    best = left.best(TASK.workload.key, TARGET.digest)
    assert best is not None and best.seconds == 1e-3


def test_a_run_exported_while_it_worked_is_completed_later(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "a.db")
    with database, empty(tmp_path / "b.db") as other:
        database.add(record(1, measured(1e-3), run))
        early = exported(database)
        database.add(record(2, measured(1e-3), run))
        database.finish_run(run)
        taken(other, exported(database))
        row = other.run(run)
        assert row == database.run(run)
        taken(other, early)  # what was known earlier takes nothing back
        assert other.run(run) == row
        with empty(tmp_path / "c.db") as third:
            taken(third, early)
            taken(third, exported(database))
            assert third.run(run) == row


def test_only_one_target_can_be_exported(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        one.register_target(target_row(OTHER_TARGET))
        run = one.begin_run(OTHER_TARGET.digest)
        one.add(record(1, measured(1e-3), run, target=OTHER_TARGET))
        text = list(export_lines(one, OTHER_TARGET.digest))
        assert taken(two, text).refused == 0
        assert [row.digest for row in two.targets()] == [OTHER_TARGET.digest]
        assert two.count() == 1


def changed(line: str, **fields: Any) -> str:
    return json.dumps({**json.loads(line), **fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": "fast"}, "seconds"),
        ({"seconds": None}, "positive seconds"),
        ({"samples": [1e-3, -1]}, "samples.1"),
        ({"outcome": "excellent"}, "outcome is none of"),
        ({"parameters": '{"tile":1024}'}, "not the digest"),
        ({"space": "another"}, "not the digest"),
        ({"detail": "{"}, "detail is not the JSON text"),
        ({"workload": "f" * 32}, "register it first"),
        ({"run": "nobody's"}, "register it first"),
        ({"target": OTHER_TARGET.digest}, "another target"),
        ({"round": -1}, "round"),
        ({"round": 2**70}, "round"),
        ({"space": "x" * 2000}, "space"),
        ({"extra": 1}, "extra"),
        ({"kind": "command"}, "command"),
        ({"__class__": "os.system"}, "__class__"),
        ({"trace": "a\ud800b"}, "Invalid JSON"),
    ],
)
def test_a_forged_record_is_refused_with_its_reason(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        text = exported(one)
        at = next(k for k, line in enumerate(text) if '"outcome":"measured"' in line)
        two.register_target(target_row(OTHER_TARGET))
        text[at] = changed(text[at], **fields)
        result = taken(two, text)
        assert (result.records, result.refused) == (8, 1)
        (refusal,) = result.refusals
        assert refusal.line == at + 1
        assert says in refusal.reason and refusal.reason.isprintable()


@pytest.mark.parametrize(
    "junk",
    [
        b'{"kind":"record","workload":',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"null",
        b"12" * 5000,
        b'{"kind":"record","seconds":NaN}',
        b'{"kind":"header","format":"autotune-tuning-db","version":1}',
        b"\x1b[31mred",
    ],
)
def test_a_damaged_line_costs_nothing_but_itself(tmp_path: Path, junk: bytes) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        text = [line.encode() for line in exported(one)]
        for at in (len(text), 5, 1):
            text.insert(at, junk)
        result = import_lines(two, text)
        assert (result.records, result.refused) == (9, 3)
        assert all(refusal.reason.isprintable() for refusal in result.refusals)
        assert exported(two) == exported(one)


def test_a_torn_last_line_keeps_the_lines_before(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        raw = "\n".join(exported(one)).encode()[:-40]
        result = import_lines(two, io.BytesIO(raw))
        assert (result.records, result.refused) == (8, 1)


def test_a_target_cannot_take_the_place_of_another(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        text = exported(one)
        at = next(k for k, line in enumerate(text) if '"kind":"target"' in line)
        text[at] = changed(text[at], digest=OTHER_TARGET.digest)
        result = taken(two, text)
        assert two.targets() == [] and two.count() == 0
        assert "digest is not that" in result.refusals[0].reason


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "not an export"),
        (b"SQLite format 3\x00", "not an export"),
        (b'{"kind":"header","format":"other","version":1}', "not an export"),
        (b'{"kind":"header","format":"autotune-tuning-db","version":2}', "version 2"),
    ],
)
def test_a_file_of_another_format_is_refused_as_a_whole(
    tmp_path: Path, head: bytes, says: str
) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        body = [line.encode() for line in exported(one)][1:]
        with pytest.raises(BadExchangeFile, match=says):
            import_lines(two, [head, *body])
        assert two.targets() == []


def test_lines_that_are_too_long_are_skipped_without_being_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "a.db") as one, empty(tmp_path / "b.db") as two:
        text = exported(one)
        longest = max(len(line) for line in text) + 1
        monkeypatch.setattr("tuning_db.exchange.LINE_LIMIT", longest + 1)
        text.insert(3, "x" * (longest * 5))
        result = taken(two, text)
        assert (result.records, result.refused) == (9, 1)
        assert "longer than" in result.refusals[0].reason


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines of an export, to damage copies of."""
    with filled(tmp_path_factory.mktemp("whole") / "a.db", range(2)) as database:
        return exported(database)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["target", "workload", "model", "run", "record", "header"]),
    field=st.sampled_from([*lines.RecordLine.model_fields, *lines.RunLine.model_fields, "tasks"]),
    value=JSON_VALUES,
)
def test_no_line_can_end_an_import(
    tmp_path_factory: pytest.TempPathFactory, whole: list[str], kind: str, field: str, value: Any
) -> None:
    with empty(tmp_path_factory.mktemp("fuzz") / "b.db") as two:
        text = list(whole)
        at = next(k for k, line in enumerate(text) if json.loads(line)["kind"] == kind)
        text.insert(at + 1, changed(text[at], **{field: value}))
        result = taken(two, text)
        assert result.records + result.others + result.known + result.refused == len(text) - 1
        assert two.connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert not two.connection.in_transaction


@given(
    value=st.dictionaries(
        st.text(max_size=8), st.integers() | st.floats(allow_nan=False), max_size=5
    )
)
def test_digests_are_those_of_the_contract(value: dict[str, Any]) -> None:
    assert lines.digest_of(json.dumps(value)) == contract_digest(value)


def test_pruning_keeps_the_leaders_and_the_best_stays_the_best(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db", range(20)) as database:
        database.add(record(30, measured(1e-6), database.runs()[0].id))
        database.add(record(30, WrongResult(1.0, 1e-5, "race"), database.runs()[0].id, final=True))
        best = database.best(TASK.workload.key, TARGET.digest)
        preview = prune(database, 3, dry_run=True)
        count = database.count()
        assert count == preview.dropped + preview.kept
        done = prune(database, 3)
        assert (done.dropped, done.kept) == (preview.dropped, preview.kept) == (count - 5, 5)
        assert database.best(TASK.workload.key, TARGET.digest) == best
        assert len(database.measured_keys(TASK.workload.key, TARGET.digest)) == 3
        orphans = "SELECT COUNT(*) FROM traces WHERE id NOT IN (SELECT trace FROM records)"
        assert database.connection.execute(orphans).fetchone() == (0,)
        assert done.bytes_after <= done.bytes_before
