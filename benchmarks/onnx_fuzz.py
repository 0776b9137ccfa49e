"""Damaged models, by the thousand: ``python -m benchmarks.onnx_fuzz --count 2000``.

Small models (a CNN, a transformer block, an LSTM, quantised layers, control flow) are damaged in
one or two places: cut short, bytes changed, types and attributes replaced, wires crossed so that
there are cycles, shapes and numbers made absurd. Each is read, imported and inspected in a process
of its own with limits of time and memory. It may import; if not, it must end with one sentence. A
traceback, a crash, a hang or a flood of memory is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError

IMPORTED, REFUSED, TRACEBACK, CRASHED, LATE, RAMBLING = OUTCOMES = (
    "imported", "refused", "traceback", "crashed", "late", "no sentence"
)  # fmt: skip
FINDINGS = OUTCOMES[2:]
LONGEST = 700
"""Characters of a sentence, at most."""

MEMORY = 6 << 30
"""Bytes of address space of each process."""

HUGE = (2**31 - 1, 2**40, 2**62, -1, 0, -(2**63))
Mutation = Callable[[Any, random.Random], None]


def originals() -> dict[str, Any]:
    """The models that are damaged, by name; each is valid."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    node = helper.make_node

    def made(nodes: list[Any], shape: list[int], weights: dict[str, Any], opset: int = 17) -> Any:
        graph = helper.make_graph(
            nodes,
            "made",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)],
                                 ir_version=8)  # fmt: skip

    def weight(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    cnn = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["p", "", "s"], ["u"], mode="linear"),
        node("GlobalAveragePool", ["u"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "v"], ["l"]),
        node("Softmax", ["l"], ["y"]),
    ]
    block = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["q", "t"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1),
        node("MatMul", ["p", "x"], ["a"]),
        node("Reshape", ["a", "shape"], ["b"]),
        node("LayerNormalization", ["b", "g"], ["y"]),
    ]
    recurrent = [
        node("LSTM", ["x", "w", "r", "b"], ["h", "last"], hidden_size=4),
        node("Squeeze", ["h", "axes"], ["q"]),
        node("ReduceMean", ["q"], ["y"], axes=[0]),
    ]
    quantised = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearMatMul", ["q", "s", "z", "w", "s", "wz", "s", "z"], ["m"]),
        node("DequantizeLinear", ["m", "s", "z"], ["d"]),
        node("Clip", ["d", "low", ""], ["y"]),
    ]
    step = helper.make_graph(
        [node("Add", ["state", "x"], ["next"]), node("Identity", ["on"], ["still"])],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, 3]),
        ],
    )
    control = [node("Loop", ["n", "", "s"], ["l"], body=step), node("Tanh", ["l"], ["y"])]
    return {
        "cnn": made(cnn, [1, 3, 8, 8], {"w": weight(4, 3, 3, 3), "v": weight(4, 5),
                    "s": np.array([1, 1, 2, 2], np.float32)}),
        "block": made(block, [1, 6, 8], {"w": weight(8, 8), "g": weight(8),
                      "shape": np.array([1, 6, 8])}),
        "recurrent": made(recurrent, [5, 1, 3], {"w": weight(1, 16, 3), "r": weight(1, 16, 4),
                          "b": weight(1, 32), "axes": np.array([1])}),
        "quantised": made(quantised, [2, 4], {"w": rng.integers(0, 255, (4, 3)).astype(np.uint8),
                          "s": np.float32(0.1), "z": np.uint8(128), "wz": np.uint8(100),
                          "low": np.float32(0)}),
        "control": made(control, [2, 3], {"n": np.array(3), "s": weight(2, 3)}),
    }  # fmt: skip


def _node(proto: Any, rng: random.Random) -> Any:
    return rng.choice(proto.graph.node) if proto.graph.node else None


def _type(proto: Any, rng: random.Random) -> None:
    value = rng.choice([*proto.graph.input, *proto.graph.output])
    value.type.tensor_type.elem_type = rng.choice((0, 2, 6, 7, 8, 9, 10, 11, 14, 16, 99))


def _shape(proto: Any, rng: random.Random) -> None:
    dims = rng.choice(proto.graph.input).type.tensor_type.shape.dim
    if not dims or rng.random() < 0.2:
        dims.add().dim_value = rng.choice(HUGE)
        return
    dims[rng.randrange(len(dims))].dim_value = rng.choice((*HUGE, 1, 7, 100_000))


def _operator(proto: Any, rng: random.Random) -> None:
    names = ("Add", "Conv", "Gather", "Loop", "Attention", "NoSuchThing", "", "Split", "TopK",
             "Reshape", "Einsum", "If", "Pad", "Tile", "Expand", "Range", "STFT")  # fmt: skip
    if (node := _node(proto, rng)) is not None:
        node.op_type = rng.choice(names)


def _wire(proto: Any, rng: random.Random) -> None:
    """An input from anywhere: from what comes later, from itself, or from nowhere."""
    if (node := _node(proto, rng)) is None or not node.input:
        return
    names = [name for other in proto.graph.node for name in other.output]
    names += [tensor.name for tensor in proto.graph.initializer] + ["nowhere", ""]
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _attribute(proto: Any, rng: random.Random) -> None:
    from onnx import helper

    if (node := _node(proto, rng)) is None:
        return
    if node.attribute and rng.random() < 0.8:
        attribute = rng.choice(node.attribute)
        name = attribute.name
        node.attribute.remove(attribute)
    else:
        name = rng.choice(("axis", "axes", "pads", "perm", "to", "kernel_shape", "group"))
    value = rng.choice((rng.choice(HUGE), [rng.choice(HUGE)] * 4, 1e38, "text", [1] * 10_000))
    node.attribute.append(helper.make_attribute(name, value))


def _remove(proto: Any, rng: random.Random) -> None:
    parts = rng.choice((proto.graph.node, proto.graph.initializer, proto.graph.input,
                        proto.graph.output, proto.opset_import))  # fmt: skip
    if parts:
        del parts[rng.randrange(len(parts))]


def _twice(proto: Any, rng: random.Random) -> None:
    parts = rng.choice((proto.graph.node, proto.graph.initializer, proto.graph.input))
    if parts:
        parts.append(rng.choice(parts))


def _order(proto: Any, rng: random.Random) -> None:
    nodes = list(proto.graph.node)
    rng.shuffle(nodes)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _weights(proto: Any, rng: random.Random) -> None:
    if not proto.graph.initializer:
        return
    tensor = rng.choice(proto.graph.initializer)
    how = rng.randrange(4)
    if how == 0:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif how == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(HUGE)
    elif how == 2:
        tensor.data_type = rng.choice((0, 1, 7, 8, 10, 16, 77))
    else:
        tensor.raw_data = bytes(rng.randrange(256) for _ in tensor.raw_data)


def _version(proto: Any, rng: random.Random) -> None:
    if proto.opset_import and rng.random() < 0.7:
        proto.opset_import[0].version = rng.choice((0, 1, 5, 7, 9, 13, 24, 99, 2**40))
    else:
        proto.ir_version = rng.choice((1, 3, 4, 99))


MUTATIONS: tuple[Mutation, ...] = (
    _type, _shape, _operator, _wire, _attribute, _remove, _twice, _order, _weights, _version,
)  # fmt: skip


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` damaged files, each with a name that says how. Equal seeds give equal ones."""
    models = originals()
    rng = random.Random(seed)
    for _ in range(count):
        name = rng.choice(list(models))
        proto = type(models[name])()
        proto.CopyFrom(models[name])
        if rng.random() < 0.15:
            content = bytearray(proto.SerializeToString())
            if rng.random() < 0.4:
                yield f"{name} cut", bytes(content[: rng.randrange(len(content))])
                continue
            for _ in range(rng.choice((1, 3, 20))):
                content[rng.randrange(len(content))] = rng.randrange(256)
            yield f"{name} bytes", bytes(content)
            continue
        done = []
        for mutate in rng.sample(MUTATIONS, rng.choice((1, 1, 2))):
            # Numbers that no field holds are refused by protobuf itself, and so are no file; and
            # the first damage may have left nothing for the second.
            with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
                mutate(proto, rng)
                done.append(mutate.__name__.strip("_"))
        yield f"{name} {' '.join(done)}", proto.SerializeToString()


def judged(content: bytes) -> tuple[str, str]:
    """The outcome of importing and inspecting ``content``, in this process, and what was said."""
    from autotune.frontends import import_model
    from autotune.inspection import inspect

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        try:
            inspect(path)
            import_model(path)
        except UserError as error:
            text = str(error)
            good = "\n" not in text and len(text) < LONGEST + len(folder)
            return (REFUSED if good else RAMBLING), text
        except Exception:  # what is looked for
            return TRACEBACK, "".join(traceback.format_exc().splitlines(True)[-8:])
    return IMPORTED, ""


def _child(content: bytes, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    pipe.send(judged(content))
    pipe.close()
    os._exit(0)


def fuzz(
    count: int, seed: int, jobs: int, limit: float, tell: Callable[[str, str, str, bytes], None]
) -> Counter[str]:
    """How many mutants had which outcome; ``tell`` gets name, outcome, text and file of each."""
    context = multiprocessing.get_context("fork")
    waiting, running, found = mutants(count, seed), list[Any](), Counter[str]()
    while True:
        while len(running) < jobs and (made := next(waiting, None)) is not None:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(made[1], theirs))
            process.start()
            theirs.close()
            running.append((made, process, ours, time.monotonic()))
        if not running:
            return found
        wait([job[2] for job in running], timeout=0.5)
        for job in list(running):
            (name, content), process, pipe, begun = job
            answer = None
            if pipe.poll():
                with contextlib.suppress(EOFError):
                    answer = pipe.recv()
            elif process.is_alive():
                if time.monotonic() - begun < limit:
                    continue
                process.kill()
                answer = (LATE, f"more than {limit:.0f} s")
            process.join()
            running.remove(job)
            outcome, text = answer or (CRASHED, f"exit {process.exitcode}")
            found[outcome] += 1
            tell(name, outcome, text, content)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every mutant imports or ends with a sentence, 1 elsewhere, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="onnx_fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each model")
    parser.add_argument("--keep", type=Path, help="write the models that are findings here")
    parser.add_argument("--json", type=Path, help="write the counts here")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        print(f"onnx_fuzz: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from benchmarks.latency import write_json
    from benchmarks.machine import describe, settings_of
    from benchmarks.onnx_coverage import load_all

    if options.count < 1 or options.jobs < 1:
        raise InputError("--count and --jobs must be 1 or more")
    os.environ.update(TVM_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    load_all()
    findings: list[dict[str, str]] = []

    def tell(name: str, outcome: str, text: str, content: bytes) -> None:
        if outcome not in FINDINGS:
            return
        findings.append({"mutant": name, "outcome": outcome, "text": text})
        print(f"{name}: {outcome}, {text}", flush=True)
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{len(findings)}.onnx").write_bytes(content)

    found = fuzz(options.count, options.seed, options.jobs, options.limit, tell)
    print(", ".join(f"{found[outcome]} {outcome}" for outcome in OUTCOMES))
    if options.json is not None:
        report = {**describe(), "settings": settings_of(options, "json"), "outcomes": dict(found)}
        write_json(options.json, {**report, "findings": findings})
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
