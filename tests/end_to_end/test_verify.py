"""`autotune db verify`, on records that look disturbed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.end_to_end.models import autotune, layers


def test_disturbed_records_are_listed_and_measured_again(tmp_path: Path) -> None:
    model, database = layers(tmp_path / "layers.onnx"), tmp_path / "tuning.db"
    autotune("tune", model, "--trials", 8, "--threads", 1, "--db", database)
    records = json.loads(autotune("db", "list", "--db", database, "--json").stdout)
    assert all(r["detail"]["drift"] > 0 for r in records if r["outcome"] == "measured")
    # As if the machine had been five times slower than at its best during three of them.
    spoilt = [r["id"] for r in records if r["outcome"] == "measured" and not r["final"]][:3]
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE records SET detail = json_set(detail, '$.drift_seconds', 5 * "
            "(SELECT max(json_extract(detail, '$.drift_seconds')) FROM records)) "
            f"WHERE id IN ({','.join(map(str, spoilt))})"
        )
    connection.close()
    options = ("--db", database, "--json")
    listed = json.loads(autotune("db", "list", "--disturbed", *options).stdout)
    assert set(spoilt) & {r["id"] for r in listed}
    done = json.loads(autotune("db", "verify", "--threads", 1, "--above", 4.0, *options).stdout)
    assert done["repeated"] == done["found"] >= 1
    after = json.loads(autotune("db", "list", "--last", 1000, *options).stdout)
    assert {r["id"] for r in records} <= {r["id"] for r in after}  # the old ones stay
    assert len(after) >= len(records) + done["repeated"]


def test_a_record_that_no_longer_holds_is_named_and_marked(tmp_path: Path) -> None:
    model, database = layers(tmp_path / "layers.onnx"), tmp_path / "tuning.db"
    autotune("tune", model, "--trials", 8, "--threads", 1, "--db", database)
    options = ("--threads", 1, "--db", database, "--above", 50.0)
    best = json.loads(autotune("db", "best", "--db", database, "--json").stdout)
    done = autotune("db", "verify", "--best", "--slower", 100.0, *options)
    assert f"{len(best)} candidates were chosen: {len(best)} measured again" in done.stdout
    liar = best[0]["id"]
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE records SET seconds = seconds / 1000 WHERE id = ?", (liar,))
    connection.close()
    done = autotune("db", "verify", liar, "--slower", 100.0, *options, check=False)
    assert done.returncode == 1
    assert f"record {liar} of {best[0]['workload_name']} no longer holds" in done.stdout
    with sqlite3.connect(database) as connection:
        marks = connection.execute("SELECT holds FROM verified ORDER BY record").fetchall()
    connection.close()
    assert marks == [(1,)] * len(best) + [(0,)]
    refused = autotune("db", "verify", 123456, *options, check=False)
    assert refused.returncode == 2 and "record 123456 is not there" in refused.stderr


def test_verify_of_another_target_says_which_there_is(tmp_path: Path) -> None:
    model, database = layers(tmp_path / "layers.onnx"), tmp_path / "tuning.db"
    autotune("tune", model, "--trials", 1, "--threads", 1, "--db", database)
    refused = autotune("db", "verify", "--threads", 2, "--db", database, check=False)
    assert refused.returncode == 2
    assert "--threads" in refused.stderr and "Traceback" not in refused.stderr


def test_times_with_hot_and_with_cold_caches_are_not_mixed(tmp_path: Path) -> None:
    model, database = layers(tmp_path / "layers.onnx"), tmp_path / "tuning.db"
    words = ("tune", model, "--threads", 1, "--db", database, "--cache", "hot", "--trials")
    autotune(*words, 1)
    before = database.read_bytes()
    refused = autotune("tune", model, "--threads", 1, "--db", database, check=False)
    assert refused.returncode == 2
    assert "--cache hot" in refused.stderr and "Traceback" not in refused.stderr
    assert database.read_bytes() == before
    autotune(*words, 2)
