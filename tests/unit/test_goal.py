"""How fast a model is to become, as people write it; and what is said before a search."""

from __future__ import annotations

import time

import numpy as np
import pytest

from autotune.errors import InputError
from autotune.goal import Goal, Race
from autotune.search.budget import Budget
from autotune.search.plan import plan
from autotune.search.settings import SearchSettings
from tests.unit.database_samples import TARGET, TASK, measured, open_with_run, record


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("2.5ms", Goal(seconds=2.5e-3)),
        ("0.5us", Goal(seconds=0.5e-6)),
        ("1 s", Goal(seconds=1.0)),
        ("onnxruntime", Goal(engine="onnxruntime")),
        ("openvino:1.1", Goal(engine="openvino", times=1.1)),
    ],
)
def test_goals_are_times_and_engines(text, goal):
    assert Goal.parse(text) == goal


@pytest.mark.parametrize(
    "text", ["", "fast", "0ms", "-1ms", "3", "onnxruntime:", "onnxruntime:0", "openvino:x", "1e3ms"]
)
def test_anything_else_is_explained(text):
    with pytest.raises(InputError, match="is no target"):
        Goal.parse(text)


def test_a_race_says_how_much_of_the_time_a_model_takes():
    inputs = {"x": np.ones(3)}

    def sleeping(seconds):
        return lambda *_: time.sleep(seconds)

    alone = Race(Goal(seconds=4e-3), inputs, 4e-3)
    assert alone.taken(sleeping(2e-3))[0] < 1 < alone.taken(sleeping(8e-3))[0]
    assert alone.taken(sleeping(2e-3))[1] >= 2e-3
    beside = Race(Goal("onnxruntime", times=1.5), inputs, 4e-3, sleeping(6e-3))
    assert beside.taken(sleeping(2e-3))[0] < 1 < beside.taken(sleeping(6e-3))[0]


def test_the_plan_says_what_is_going_to_happen_and_how_long(tmp_path):
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:

        def said(**more):
            return plan([TASK], TARGET, database, SearchSettings(**more))

        text = said(budget=Budget(trials=240))
        assert "1 task (3 calls) with cost-model" in text
        assert "240 trials, about 60 s at 4.0 a second, as most machines do" in text
        assert "known already" not in text
        for tile in range(40):
            database.add(record(tile, measured(1e-3), run))
        with database.transaction():
            database.connection.execute(
                "UPDATE runs SET started = '2026-01-01T00:00:00+00:00',"
                " finished = '2026-01-01T00:00:05+00:00'"
            )
        text = said(budget=Budget(trials=1000), until=2e-3)
        assert "40 candidates are known already" in text
        assert "960 trials, about 2 min at 8.0 a second, as the last run went" in text
        assert text.endswith("until an inference takes 2 ms")
        assert "60 s at most, enough for about 480 of 960 trials" in said(budget=Budget(1000, 60.0))
        text = said(budget=Budget(None, 600.0))
        assert "10 min, enough for about 4800 trials at 8.0 a second" in text
