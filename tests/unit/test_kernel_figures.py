"""What benchmarks.kernels says of its figures: bounds, ratios, claims, what is an operator."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autotune.profile.roofline import KIB, MIB, Roof
from benchmarks.kernel_engines import CUT, SKIPPED, TIMED, counted, grouped, node_seconds
from benchmarks.kernel_models import Tensor, counts, flops, label
from benchmarks.kernel_table import (
    behind,
    better_peer,
    claims,
    heavy,
    ratio,
    remarks,
    rows_of,
    share,
    summary,
)
from benchmarks.kernels import main
from search_spaces.task import Block, Task, TensorType, Workload

ROOF = Roof({"float32": 1e11}, ((256 * KIB, 2e11), (1 * MIB, 1e11), (256 * MIB, 2e10)))


def row(
    operator: str,
    seconds: float,
    bound: float,
    by: str = "compute",
    calls: int = 1,
    **peers: tuple[float, float, float],
) -> dict[str, Any]:
    """A row whose peers are given by seconds and the range of their ratio."""

    def taken(median: float) -> dict[str, Any]:
        return {"median": median, "fastest": median * 0.9, "calls": 10, "rounds": [median]}

    engines = {"ours": taken(seconds)}
    for name, (median, low, high) in peers.items():
        between = {"value": median / seconds, "low": low, "high": high}
        engines[name] = taken(median) | {"ratio": between}
    return {
        "operator": operator,
        "calls": calls,
        "status": "measured",
        "flops": 1e9,
        "bytes": 1e6,
        "bound": {"seconds": bound, "by": by},
        "difference": 1e-6,
        "sources": ["conv2d: default cpu.tiled"],
        "engines": engines,
    }


def found(*rows: dict[str, Any], busy: float = 0.0) -> dict[str, Any]:
    return {"status": "measured", "rows": list(rows), "busy_cores_of_others": busy}


def task(arguments: list[tuple[int, ...]], *ops: str) -> Task:
    block = Block("b", (), (), (), tuple((name, 1) for name in ops))
    types = tuple(TensorType(shape, "float32") for shape in arguments)
    return Task(Workload(str(ops), "w", "", types, blocks=(block,)), 1, 0.0, 0)


def test_bandwidth_lies_between_its_neighbours_and_stays_beyond_the_ends() -> None:
    assert ROOF.bandwidth_at(1) == ROOF.bandwidth_at(256 * KIB) == 2e11
    assert ROOF.bandwidth_at(1 * MIB) == pytest.approx(1e11)
    # Half way of sizes that are four apart is twice the smaller one.
    assert ROOF.bandwidth_at(512 * KIB) == pytest.approx(math.sqrt(2e11 * 1e11))
    assert ROOF.bandwidth_at(1 << 40) == 2e10


def test_the_lower_roof_is_the_bound() -> None:
    compute, memory = ROOF.bound(1e9, 1 * MIB), ROOF.bound(1e3, 1 * MIB)
    assert (compute.by, compute.seconds) == ("compute", pytest.approx(1e-2))
    assert (memory.by, memory.seconds) == ("memory", pytest.approx(MIB / 1e11))


def test_of_two_roofs_the_higher_points_count() -> None:
    disturbed = Roof({"float32": 9e10}, ((256 * KIB, 1e11), (1 * MIB, 1.5e11), (256 * MIB, 1e10)))
    best = disturbed.better(ROOF)
    assert best.peak == 1e11 and [b for _, b in best.bandwidth] == [2e11, 1.5e11, 2e10]
    assert ROOF.better(None) is ROOF


def test_a_ratio_is_taken_within_rounds() -> None:
    ours, theirs = summary([[2.0, 1.0, 3.0], [4.0]]), summary([[3.0], [4.0, 5.0, 30.0]])
    assert (ours["median"], ours["fastest"], ours["calls"]) == (3.0, 1.0, 4)
    assert ratio(ours, theirs) == {"value": 1.375, "low": 1.25, "high": 1.5}


def test_heavy_kernels_compute_and_take_their_part_of_the_time() -> None:
    big, small = row("big", 1.0, 0.9, calls=5), row("small", 1e-3, 9e-4)
    copy = row("copy", 1.0, 0.9, "memory")
    rows = found(small, copy, big)
    assert heavy(rows) == [big]
    assert share(big) == pytest.approx(1.0)
    assert claims(rows) == {"results_agree": True, "heavy_kernels_reach_0.9_of_bound": True}
    assert not claims(found(row("big", 1.0, 0.8)))["heavy_kernels_reach_0.9_of_bound"]


def test_slower_is_what_is_slower_in_every_round_than_the_better_peer() -> None:
    slow = row("slow", 1e-3, 9e-4, onnxruntime=(2e-3, 1.9, 2.1), openvino=(5e-4, 0.4, 0.6))
    even = row("even", 1e-3, 9e-4, onnxruntime=(9.9e-4, 0.9, 1.1))
    # By less than the clock of the peer can tell.
    tiny = row("tiny", 3e-6, 2e-6, onnxruntime=(2.5e-6, 0.8, 0.9))
    alone = row("alone", 1e-3, 9e-4)
    assert better_peer(slow) == "openvino" and better_peer(alone) is None
    assert [behind(one) for one in (slow, even, tiny, alone)] == [True, False, False, False]
    assert claims(found(even, tiny))["no_kernel_slower_than_the_better_peer"]
    assert not claims(found(slow, even))["no_kernel_slower_than_the_better_peer"]


def test_a_wrong_result_is_no_figure_and_breaks_a_claim() -> None:
    wrong = {"operator": "Conv", "calls": 9, "status": "wrong", "reason": "differs by 0.1"}
    rows = found(wrong, row("right", 1.0, 0.95))
    assert not claims(rows)["results_agree"]
    assert [cells[0] for cells in rows_of(rows, [])] == ["right"]


def test_what_the_claims_come_to_is_said() -> None:
    slow = row("slow", 1e-3, 9e-4, openvino=(5e-4, 0.4, 0.6))
    content = {
        "target": {"threads": 2},
        "roof": {"peaks": {"float32": 1e11}, "bandwidth": ROOF.bandwidth},
        "models": {
            "cls": found(slow, row("far", 1e-3, 1e-4), busy=0.7),
            "minilm": {"status": "skipped", "reason": "MiniLM needs its weights"},
        },
    }
    told = "\n".join(remarks(content))
    assert "100 GFLOP/s on 2 threads" in told and "20 GB/s at 256 MiB" in told
    assert "cls: 1 of 2 heavy kernels" in told
    assert "slow (openvino)" in told and "far (" not in told
    assert "0.7 cores" in told and "MiniLM needs its weights" in told


def test_rows_are_ordered_by_their_time_in_the_model_and_have_their_own_unit() -> None:
    rows = found(
        row("often", 1e-3, 9e-4, "memory", calls=9), row("once", 2e-3, 1e-3, openvino=(4e-3, 1, 3))
    )
    often, once = rows_of(rows, ["onnxruntime", "openvino"])
    assert often[0] == "often" and often[4].endswith("GB/s") and once[4].endswith("GFLOP/s")
    assert once[7:9] == ["", "4000.0: 2.00 (1.00 to 3.00)"]


def test_conversions_around_an_operator_are_not_counted() -> None:
    turned, convolution = task([(2, 3), (3, 2)]), task([(3, 2), (9, 9), (3, 9)], "Add", "Mul")
    padded = task([(3, 2), (3, 4)], "prim.if_then_else")
    assert counted([turned, padded, convolution]) == [convolution]
    # Of copies those that do more than to turn a tensor.
    joined = task([(2, 3), (2, 3), (4, 3)], "prim.if_then_else")
    assert counted([turned, joined]) == [joined]
    assert counted([turned]) == [turned]


def test_nodes_of_a_profile_are_summed_by_run() -> None:
    def event(name: str, op: str, microseconds: int) -> dict[str, Any]:
        args = {"op_name": op}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}

    run = {"cat": "Session", "name": "model_run", "dur": 99}
    start = {"cat": "Session", "name": "session_initialization", "dur": 999}
    whole = [event("a", "ReorderInput", 7), event("b", "Conv", 5), event("c", "ReorderOutput", 3)]
    calls = node_seconds([start, *whole, run, event("a", "ReorderInput", 4), run])
    assert calls == pytest.approx([5e-6 + CUT, 4e-6 + CUT])


def test_samples_of_counters_that_are_rounded_are_means_of_more_calls_where_kernels_are_fast() -> (
    None
):
    assert grouped(1.0) == grouped(1e-3) == 1
    assert 1 < grouped(1e-4) < TIMED
    assert grouped(1e-6) == TIMED
    assert grouped((SKIPPED + TIMED) * 2 * CUT) <= TIMED


def test_operators_are_told_and_counted_by_their_definition() -> None:
    weight = Tensor(1, (128, 64, 3, 3), "float32", True)
    data, result = (
        Tensor(0, (1, 64, 56, 56), "float32", False),
        Tensor(2, (1, 128, 28, 28), "float32", False),
    )
    strides = {"strides": [2, 2], "group": 1, "pads": [1, 1, 1, 1]}
    assert flops("Conv", [data.shape, weight.shape], result.shape, strides) == 2 * 9 * 64 * (
        128 * 28 * 28
    )
    assert label("Conv", [data, weight], result, strides) == (
        "Conv 1x64x56x56 [128x64x3x3] stride 2,2"
    )
    assert flops("Gemm", [(4, 8), (8, 3)], (4, 3), {}) == 2 * 4 * 8 * 3
    assert flops("Gemm", [(8, 4), (8, 3)], (4, 3), {"transA": 1}) == 2 * 4 * 8 * 3
    assert flops("Relu", [(4, 8)], (4, 8), {}) == 0.0


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "counted"),
    [
        ("Relu", (1, 16, 32, 32), {}, True),
        ("Relu", (1, 16, 31, 32), {}, False),
        ("Softmax", (1, 10), {}, True),
        ("Reshape", (1, 16, 32, 32), {}, False),
        ("Transpose", (1, 12, 128, 32), {"perm": [0, 2, 1, 3]}, True),
        # Only an axis of extent 1 moves.
        ("Transpose", (1, 12, 128, 32), {"perm": [1, 0, 2, 3]}, False),
    ],
)
def test_what_takes_time_is_an_operator(
    op: str, shape: tuple[int, ...], attributes: dict[str, Any], counted: bool
) -> None:
    data = Tensor(0, shape, "float32", False)
    result = Tensor(1, shape, "float32", False)
    assert counts(op, [data], result, attributes) is counted
    assert not counts(op, [Tensor(0, shape, "int64", False)], result, attributes)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--models", "vgg"],
        ["--rounds", "0"],
        ["--limit", "0"],
        ["--trials", "-1"],
        ["--db", "/nowhere/tuning.db"],
    ],
)
def test_wrong_use_is_refused_with_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("benchmarks.kernels: ")
