"""What the tuning database bears: ``python -m benchmarks.database``.

Fills a file with records (a million) like those of a search, and says how many bytes one takes as
the file grows, and how long the best record of a task takes to look up, from a freshly opened file.
Then several processes write to one file at once, one durable commit a record, and what they were
told is written is compared with what is there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import describe
from tuning_db.database import TuningDatabase
from tuning_db.lines import digest_of
from tuning_db.records import Record, TargetRow, WorkloadRow

TARGETS, WORKLOADS = 4, 250
"""Machines, and tasks on each: a team's."""

LOOKUPS = 2000
BATCH = 1000
"""Records written by one transaction, while the file is filled."""

AIM = 1e-3
"""Seconds that a look-up may take."""


def target(number: int) -> TargetRow:
    """One of the machines."""
    description = json.dumps({"kind": "llvm", "model": f"machine {number}", "cores": number + 1})
    return TargetRow(digest_of(description), f"machine {number}", description)


def workload(number: int) -> WorkloadRow:
    """One of the tasks; the function is as long as a fused convolution's."""
    text = json.dumps({"blocks": [[number, index, "compute"] for index in range(500)]})
    return WorkloadRow(digest_of(text), f"conv2d_add_{number}", text, "{}")


def record(rng: random.Random, task: str, machine: str, run: str, number: int) -> Record:
    """A candidate of a tiled space with a trace as long as those are; one in ten failed."""
    parameters = {
        "rows": rng.randint(1, 14),
        "vectors": rng.randint(1, 6),
        "order": rng.choice(["rows", "columns"]),
        "number": number,
    }
    failed = rng.random() < 0.1
    seconds = None if failed else 1e-3 * rng.lognormvariate(0.0, 0.5)
    steps = [["Split", [f"l{k}"], [rng.randint(1, 64)], [f"l{k + 1}"]] for k in range(60)]
    samples = () if seconds is None else tuple(seconds * (1 + 0.01 * k) for k in range(20))
    text = json.dumps(parameters)
    return Record(
        workload=task,
        target=machine,
        space="cpu.tiled",
        space_version=2,
        parameters=text,
        candidate=digest_of(json.dumps(["cpu.tiled", 2, parameters])),
        outcome="build_failed" if failed else "measured",
        seconds=seconds,
        samples=samples,
        error=None if failed else 1e-7,
        tolerance=None if failed else 1e-5,
        detail=json.dumps({"stages": {"build": 0.1, "run": 0.05}, "uncertainty": 0.01}),
        trace=json.dumps([steps, []]),
        versions=json.dumps({"autotune": "0.1.0", "tvm": "0.27.0.post1"}),
        run=run,
        time="2026-01-01T00:00:00.000+00:00",
    )


def fill(path: Path, count: int) -> list[dict[str, float]]:
    """Write ``count`` records to a new file; its size at ever larger numbers of records."""
    rng = random.Random(0)
    machines = [target(number) for number in range(TARGETS)]
    tasks = [workload(number) for number in range(WORKLOADS)]
    sizes: list[dict[str, float]] = []
    with TuningDatabase.open(path) as database:
        for machine in machines:
            database.register_target(machine)
        for task in tasks:
            database.register(task)
        runs = {machine.digest: database.begin_run(machine.digest) for machine in machines}
        written = 0
        for mark in sorted({count // 100, count // 10, count // 2, count}):
            while written < mark:
                with database.transaction():
                    for _ in range(min(BATCH, mark - written)):
                        machine = machines[written % TARGETS].digest
                        task = tasks[written // TARGETS % WORKLOADS].key
                        database.insert(record(rng, task, machine, runs[machine], written), 0)
                        written += 1
            database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            size = path.stat().st_size
            sizes.append({"records": mark, "bytes": size, "bytes_a_record": size / mark})
    return sizes


def look_up(path: Path) -> dict[str, Any]:
    """Seconds of looking the best of a task up, each task about once, in random order."""
    pairs = [(workload(w).key, target(t).digest) for w in range(WORKLOADS) for t in range(TARGETS)]
    random.Random(1).shuffle(pairs)
    begun = time.perf_counter()
    taken = []
    with TuningDatabase.open(path, create=False, read_only=True) as database:
        opened = time.perf_counter() - begun
        for task, machine in (pairs * (LOOKUPS // len(pairs) + 1))[:LOOKUPS]:
            begun = time.perf_counter()
            found = database.best(task, machine)
            taken.append(time.perf_counter() - begun)
            assert found is None or found.target == machine  # all of a few may have failed
    ordered = sorted(taken)
    return {
        "opened_seconds": opened,
        "first_seconds": taken[0],
        "median_seconds": statistics.median(ordered),
        "p99_seconds": ordered[int(0.99 * len(ordered))],
        "slowest_seconds": ordered[-1],
    }


def _write(path: Path, worker: int, count: int, told: Any) -> None:
    rng = random.Random(worker)
    with TuningDatabase.open(path) as database:
        run = database.begin_run(target(0).digest)
        for number in range(count):
            key = workload(number % WORKLOADS).key
            made = record(rng, key, target(0).digest, run, worker * count + number)
            told.put(database.add(made).candidate)


def write_at_once(path: Path, workers: int, each: int) -> dict[str, Any]:
    """Let ``workers`` processes write ``each`` records to one file; how many were lost."""
    with TuningDatabase.open(path) as database:
        database.register_target(target(0))
        for number in range(WORKLOADS):
            database.register(workload(number))
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    processes = [
        context.Process(target=_write, args=(path, worker, each, told)) for worker in range(workers)
    ]
    begun = time.perf_counter()
    for process in processes:
        process.start()
    acknowledged = {told.get(timeout=600) for _ in range(workers * each)}
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    with TuningDatabase.open(path, create=False, read_only=True) as database:
        kept = {row[0] for row in database.rows("SELECT candidate FROM records")}
    return {
        "processes": workers,
        "records_each": each,
        "lost": len(acknowledged - kept),
        "kept": len(kept),
        "records_a_second": workers * each / seconds,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.database", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--records", type=int, default=1_000_000, help="(default: %(default)s)")
    add("--processes", type=int, default=8, help="that write at once (default: %(default)s)")
    add("--each", type=int, default=500, help="records of each of them (default: %(default)s)")
    add("--work", type=Path, default=Path("build/database"), help="folder (%(default)s)")
    add("--json", type=Path, default=Path("build/database.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    if options.records < TARGETS * WORKLOADS or options.processes < 1 or options.each < 1:
        raise InputError(f"--records must be {TARGETS * WORKLOADS} or more, the others 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
    except UserError as error:
        print(f"benchmarks.database: {error}", file=sys.stderr)
        return 2
    options.work.mkdir(parents=True, exist_ok=True)
    full, shared = options.work / "full.db", options.work / "shared.db"
    for path in (full, shared):
        for side in ("", "-wal", "-shm"):
            path.with_name(path.name + side).unlink(missing_ok=True)
    begun = time.perf_counter()
    sizes = fill(full, options.records)
    print(f"{options.records} records written in {time.perf_counter() - begun:.0f} s")
    for entry in sizes:
        print(f"  {entry['records']:>8} records: {entry['bytes_a_record']:.0f} bytes each")
    found = look_up(full)
    print(
        f"best of a task: median {found['median_seconds'] * 1e3:.3f} ms, "
        f"p99 {found['p99_seconds'] * 1e3:.3f} ms, first {found['first_seconds'] * 1e3:.3f} ms "
        f"(opening took {found['opened_seconds']:.2f} s)"
    )
    writers = write_at_once(shared, options.processes, options.each)
    print(
        f"{writers['processes']} processes, {writers['records_each']} records each: "
        f"{writers['lost']} lost, {writers['records_a_second']:.0f} records/s"
    )
    claims = {
        "looked_up_in_under_a_millisecond": found["p99_seconds"] < AIM,
        "no_record_lost": writers["lost"] == 0
        and writers["kept"] == options.processes * options.each,
    }
    settings = {"records": options.records}
    content = {"benchmark": "database", **describe(), "settings": settings, "sizes": sizes}
    write_json(options.json, {**content, "best": found, "writers": writers, "claims": claims})
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
