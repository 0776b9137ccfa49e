"""What a profile says of its figures: calls lined up, verdicts, the roof, the trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.cli.profile import show
from autotune.files import user_cache
from autotune.profile import store
from autotune.profile.observe import IDLE, Called, calls_of, timeline
from autotune.profile.origins import first_of, operators_of, told
from autotune.profile.profile import Profile, judged
from autotune.profile.roofline import KIB, MIB, Roof
from autotune.profile.trace import chrome_trace
from autotune.testing.report_sections import facts
from search_spaces.task import Target
from tests.trace_format import faults

ROOF = Roof({"float32": 1e11}, ((256 * KIB, 1e11), (1 * MIB, 1e11), (256 * MIB, 2e10)), 5e-6)
TARGET = Target("llvm", "x86_64-linux-gnu", "", (), "A CPU", 2, 2)


def calls(*seconds: float, other: bool = False) -> list[Called]:
    names = ["fused_conv2d_prepacked", IDLE, "other" if other else "add"]
    return [Called(n, i * 1e-3, s) for i, (n, s) in enumerate(zip(names, seconds, strict=True))]


def test_what_observing_costs_is_taken_off_each_call() -> None:
    seen = timeline([(9e-3, calls(5e-3, 2e-6, 1e-6)), (8e-3, calls(4e-3, 2e-6, 3e-3))])
    assert seen.cost == pytest.approx(2e-6)
    assert seen.seconds[:, 0] == pytest.approx([4.998e-3, 3.998e-3])
    assert seen.seconds[0, 2] == 0.0  # never below nothing


def test_inferences_that_went_another_way_are_left_out() -> None:
    usual = [(float(k), calls(1e-3, 1e-6, 2e-3)) for k in (3, 1, 2)]
    seen = timeline([(9.0, calls(1e-3, 1e-6, 2e-3, other=True)), *usual])
    assert seen.names[2] == "add"
    assert list(seen.walls) == [3.0, 1.0, 2.0]
    assert seen.walls[seen.typical] == 2.0


def test_calls_within_calls_are_told_apart() -> None:
    events = [
        ("outer", True, 0),
        ("inner", True, 1000),
        ("inner", False, 3000),
        ("outer", False, 9000),
    ]
    inner, outer = calls_of(events)
    assert (inner.name, outer.name) == ("inner", "outer")
    assert (inner.begin, inner.seconds) == (pytest.approx(1e-6), pytest.approx(2e-6))
    assert (outer.begin, outer.seconds) == (0.0, pytest.approx(9e-6))


@pytest.mark.parametrize(
    ("flops", "size", "seconds", "share", "verdict"),
    [
        (1e9, 1 * MIB, 2e-2, 0.5, "compute"),
        (1e6, 256 * MIB, 4 * 256 * MIB / 2e10, 0.25, "memory"),
        (1e3, 1024, 1e-5, 1.024e-8 / 1e-5, "overhead"),
        (0.0, 256 * MIB, 1e-5, None, "partial"),  # a row of a large table
        (1e9, 1 * MIB, 0.9e-2, 1.0, "compute"),  # a roof is a measurement, too
        (1e9, 1 * MIB, 0.5e-2, 2.0, "compute"),  # by Winograd's algorithm
        (0.0, 0, 1e-5, None, "unknown"),
    ],
)
def test_verdicts(
    flops: float, size: int, seconds: float, share: float | None, verdict: str
) -> None:
    found, by = judged(flops, size, seconds, ROOF)
    assert by == verdict
    assert found == (None if share is None else pytest.approx(share))


def test_a_roof_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = [ROOF, Roof({"float32": 2e11}, tuple((s, v / 2) for s, v in ROOF.bandwidth), 6e-6)]
    monkeypatch.setattr(store, "measure", lambda target: measured.pop(0))
    assert store.roof_of(TARGET) == store.roof_of(TARGET) == ROOF
    # The better of both at each point: nothing makes a machine better than it is.
    again = store.roof_of(TARGET, again=True)
    assert again == Roof({"float32": 2e11}, ROOF.bandwidth, 5e-6) == store.roof_of(TARGET)
    assert not measured


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"format": 0}', '{"format": 2, "peaks": []}', '{"format": 1, "peak": 1e9}', "[]"],
)
def test_a_damaged_roof_is_measured_again(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(store, "measure", lambda target: ROOF)
    (roofs := user_cache("roofs")).mkdir(parents=True)
    (roofs / f"{TARGET.digest}.json").write_text(text)
    assert store.roof_of(TARGET) == ROOF
    assert store.read(roofs / f"{TARGET.digest}.json") == ROOF


def profile(threads: int = 2, name: str = "conv2d") -> Profile:
    entry = facts(kernel="conv2d").profile.entries[0]
    entry = replace(entry, name=name, functions=("fused_conv2d",), calls=1)
    seen = timeline([(9e-3, calls(5e-3, 2e-6, 1e-3))])
    told = (1e-2, 9e-3, 1.1e-2, 6e-3, 0.0, 4e-3, 2e-6, ROOF, (entry,), seen)
    return Profile("m", "cpu", threads, *told)


def test_the_tables_have_room_for_names_and_say_the_shares(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(profile(name="conv2d_add_add_clip_multiply"))
    shown = capsys.readouterr().out
    assert "conv2d_add_add_clip_multiply 1x8x8x32" in shown and "cpu.tiled (" in shown
    assert "kernels 6 (60.0%) + runtime 0 (0.0%) + rest 4 (40.0%)" in shown
    assert "us to start 2 threads" in shown
    show(profile(threads=1))
    assert "to start" not in capsys.readouterr().out  # one thread starts no other


def test_a_machine_that_is_busy_all_the_time_is_noticed() -> None:
    steady = replace(profile(), low=9.9e-3, high=1.01e-2)
    assert replace(steady, rest=5e-3).busy and not replace(steady, rest=1e-3).busy
    # A call has parts that nobody lists, which are much of the smallest models.
    assert not replace(steady, wall=1e-5, low=9.9e-6, high=1.01e-5, rest=5e-6).busy


def test_the_trace_holds_one_inference() -> None:
    text = json.dumps(chrome_trace(profile()))
    assert faults(text) == []
    events = json.loads(text)["traceEvents"]
    timed = [event for event in events if event["ph"] == "X"]
    assert [event["name"] for event in timed] == ["conv2d 1x8x8x32", IDLE, "add"]
    assert [event["cat"] for event in timed] == ["kernel", "runtime", "runtime"]
    assert timed[0]["ts"] == 0 and timed[0]["dur"] == pytest.approx(4998)
    assert timed[0]["args"]["schedule"] == "cpu.tiled"


def test_each_call_has_the_operators_that_the_manifest_says() -> None:
    told = [("add", ("a",)), ("fused", ("b", "c")), ("add", ("d",)), ("once", ("e",))]
    manifest = {"calls": [{"function": f, "operators": list(o)} for f, o in told]}
    names = ["add", IDLE, "fused", "add", "once", "once"]
    # What is called another number of times than the manifest says is not known.
    assert operators_of(names, manifest) == (("a",), (), ("b", "c"), ("d",), (), ())
    assert operators_of(["add_prepacked", "add"], manifest) == (("a",), ("d",))
    assert operators_of(names, {}) == ((),) * 6


def test_operators_are_told_in_a_line() -> None:
    names = ("/a/b/MatMul", "/a/b/Add", "/a/c/Relu", "Conv")
    assert told(names) == "/a/b/MatMul, Add, /a/c/Relu, Conv"
    assert told(names, wide=16) == "/a/b/MatMul, Add and 2 more"
    assert told(("x" * 99, "y")) == "x" * 99 + " and 1 more"
    assert first_of([]) == first_of([()]) == ""
    assert first_of([("a",)]) == "a"
    assert first_of([("a", "b"), ("c",)]) == "a, b; 1 other call"
    assert first_of([("a", "b")] * 3) == "a, b; 2 other calls"


def test_a_kernel_is_held_against_the_peak_of_its_arithmetic() -> None:
    roof = Roof({"float32": 1e11, "int8": 4e11}, ROOF.bandwidth, 5e-6)
    assert judged(1e9, 1 * MIB, 2e-2, roof) == (pytest.approx(0.5), "compute")
    assert judged(1e9, 1 * MIB, 2e-2, roof, "int8") == (pytest.approx(0.125), "compute")
    assert judged(1e9, 1 * MIB, 2e-2, roof, "bfloat16") == (None, "unmeasured")
    # What computes nothing is bound by memory, whatever it moves.
    share, verdict = judged(0.0, 256 * MIB, 2 * 256 * MIB / 2e10, roof, "bfloat16")
    assert (share, verdict) == (pytest.approx(0.5), "memory")
    other = Roof({"float32": 2e11, "float64": 1e11}, ROOF.bandwidth, 5e-6)
    assert roof.better(other).peaks == {"float32": 2e11, "float64": 1e11, "int8": 4e11}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"dur": -1.0}, "dur is no time"),
        ({"dur": float("nan")}, "NaN is no JSON"),
        ({"ts": 1.0, "dur": 3.0}, "ends after it"),
        ({"tid": "1"}, "no thread"),
        ({"ph": "x"}, "phase"),
        ({"name": ""}, "no name"),
    ],
)
def test_a_trace_that_breaks_the_format_is_noticed(change: dict[str, Any], fault: str) -> None:
    event = {"ph": "X", "pid": 1, "tid": 1, "cat": "kernel", "name": "a", "ts": 0.0, "dur": 2.0}
    assert faults(json.dumps({"traceEvents": [event, {**event, "ts": 2.0}]})) == []
    assert any(
        fault in text for text in faults(json.dumps({"traceEvents": [event, event | change]}))
    )
