"""The ONNX project's own backend tests, as models that an exporter would have written.

Cases come from the installed ``onnx`` package: its node tests, and its models of the kinds
"simple", "pytorch-converted" and "pytorch-operator". Those of ordinary types are taken: every input
and output is an array of booleans, integers, bfloat16 numbers or floats that numpy itself has
(strings, sequences, optionals, complex numbers and the 8-, 4- and 2-bit types are left out), and a
node test is no ``_expanded`` twin of another.

A node test passes everything as an input, the shape of a Reshape as well as the weights of a Conv.
Exporters write these as constants, and without them no shape would be known before the model runs.
So the inputs named in ``PARAMETERS`` become initializers that hold the values of the test; all the
others stay inputs.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar


class Named(Protocol):
    """Anything that is examined under a name."""

    @property
    def name(self) -> str: ...


class Outcome(Named, Protocol):
    """What became of it, and why."""

    @property
    def outcome(self) -> str: ...

    @property
    def reason(self) -> str: ...


C = TypeVar("C", bound=Named)

PARAMETERS: dict[str, tuple[str, ...]] = {
    "AffineGrid": ("size",),
    "BatchNormalization": ("scale", "B", "input_mean", "input_var"),
    "BlackmanWindow": ("size",),
    "CausalConvWithState": ("weight", "bias"),
    "CenterCropPad": ("shape",),
    "Clip": ("min", "max"),
    "Col2Im": ("image_shape", "block_shape"),
    "Compress": ("condition",),
    "ConstantOfShape": ("input",),
    "Conv": ("W", "B"),
    "ConvInteger": ("w", "x_zero_point", "w_zero_point"),
    "ConvTranspose": ("W", "B"),
    "CumProd": ("axis",),
    "CumSum": ("axis",),
    "DFT": ("dft_length", "axis"),
    "DeformConv": ("W", "B"),
    "DequantizeLinear": ("x_scale", "x_zero_point"),
    "Dropout": ("ratio", "training_mode"),
    "Expand": ("shape",),
    "GRU": ("W", "R", "B", "sequence_lens"),
    "GroupNormalization": ("scale", "bias"),
    "HammingWindow": ("size",),
    "HannWindow": ("size",),
    "If": ("cond",),
    "InstanceNormalization": ("scale", "B"),
    "LSTM": ("W", "R", "B", "P", "sequence_lens"),
    "LayerNormalization": ("Scale", "B"),
    "Loop": ("M", "cond"),
    "MatMulInteger": ("b", "a_zero_point", "b_zero_point"),
    "MaxUnpool": ("output_shape",),
    "MelWeightMatrix": (
        "num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz"
    ),
    "NonMaxSuppression": ("max_output_boxes_per_class", "iou_threshold", "score_threshold"),
    "OneHot": ("depth", "values"),
    "PRelu": ("slope",),
    "Pad": ("pads", "constant_value", "axes"),
    "QLinearConv": (
        "x_scale", "x_zero_point", "w", "w_scale", "w_zero_point", "y_scale", "y_zero_point", "B"
    ),
    "QLinearMatMul": (
        "a_scale", "a_zero_point", "b", "b_scale", "b_zero_point", "y_scale", "y_zero_point"
    ),
    "QuantizeLinear": ("y_scale", "y_zero_point"),
    "RMSNormalization": ("scale",),
    "RNN": ("W", "R", "B", "sequence_lens"),
    "Range": ("start", "limit", "delta"),
    "Resize": ("roi", "scales", "sizes"),
    "Reshape": ("shape",),
    "ReverseSequence": ("sequence_lens",),
    "STFT": ("frame_step", "window", "frame_length"),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Split": ("split",),
    "Squeeze": ("axes",),
    "Tile": ("repeats",),
    "TopK": ("K",),
    "Trilu": ("k",),
    "Unsqueeze": ("axes",),
    "Upsample": ("scales",),
    **{
        f"Reduce{name}": ("axes",)
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum",
                     "SumSquare")
    },
}  # fmt: skip
"""By operator: the formal inputs that exporters write as constants."""

FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Case:
    """A model with inputs and what it computes from them. ``operator`` is what it tests."""

    name: str
    operator: str
    model: Any = field(repr=False)
    inputs: dict[str, Any] = field(repr=False)
    outputs: dict[str, Any] = field(repr=False)
    rtol: float = 1e-3


def node_cases(modules: Sequence[str] = (), bind: bool = True) -> Iterator[Case]:
    """The node tests of the ``modules`` of ``onnx.backend.test.case.node``, of all where none.

    They are made when their module is imported, which takes 15 s for all. Without ``bind``
    everything stays an input.
    """
    import onnx.backend.test.case.node as package

    names = modules or [
        entry.name.removeprefix(f"{package.__name__}.")
        for entry in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            importlib.import_module(f"{package.__name__}.{name}")
    for test in package._NodeTestCases:
        if "_expanded" not in test.name:
            for inputs, outputs in test.data_sets:
                if ordinary((*inputs, *outputs)):
                    yield _case(test, test.model, inputs, outputs, bind)


def model_cases(kinds: Sequence[str] = FOLDERS) -> Iterator[Case]:
    """The models that the ``onnx`` package carries as files, of ``kinds``."""
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test.loader import load_model_tests

    for kind in kinds:
        for test in sorted(load_model_tests(kind=kind), key=lambda test: test.name):
            if test.model_dir is None:
                continue
            folder = Path(test.model_dir)
            model = onnx.load(folder / "model.onnx")
            for data in sorted(folder.glob("test_data_set_*")):
                arrays = {
                    part: [
                        onnx.load_tensor(data / f"{part}_{i}.pb")
                        for i in range(len(list(data.glob(f"{part}_*.pb"))))
                    ]
                    for part in ("input", "output")
                }
                inputs, outputs = (
                    [numpy_helper.to_array(tensor) for tensor in arrays[part]]
                    for part in ("input", "output")
                )
                if ordinary((*inputs, *outputs)):
                    yield _case(test, model, inputs, outputs, False, f"{kind} model")


def named(cases: Sequence[C], only: str) -> list[C]:
    """Those of ``cases`` whose name holds one of the words in ``only``, by commas; all of none."""
    words = [word for word in only.split(",") if word]
    return [case for case in cases if not words or any(word in case.name for word in words)]


def teller(count: int, quiet: str) -> Callable[[Outcome], None]:
    """What prints a line for each of ``count`` results as it comes, but where it is ``quiet``."""
    numbers = itertools.count(1)

    def tell(result: Outcome) -> None:
        number = next(numbers)
        if result.outcome != quiet:
            line = f"{number}/{count} {result.name}: {result.outcome}, {result.reason}"
            print(line, flush=True)

    return tell


def ordinary(values: Sequence[Any]) -> bool:
    """Whether all are arrays of booleans, integers, bfloat16 or floats that numpy itself has."""
    import numpy as np

    return all(
        isinstance(value, np.ndarray | np.generic)
        and (value.dtype.kind in "fiub" or value.dtype.name == "bfloat16")
        for value in values
    )


def _case(test: Any, model: Any, inputs: Any, outputs: Any, bind: bool, operator: str = "") -> Case:
    import numpy as np
    from onnx import numpy_helper

    proto = type(model)()
    proto.CopyFrom(model)
    given = dict(zip((value.name for value in proto.graph.input), inputs, strict=False))
    given = {name: np.asarray(value) for name, value in given.items()}
    wanted = dict(zip((value.name for value in proto.graph.output), outputs, strict=False))
    bound = _parameters(proto) if bind else set()
    for name in sorted(bound & set(given)):
        proto.graph.initializer.append(numpy_helper.from_array(given.pop(name), name))
    kept = [value for value in proto.graph.input if value.name not in bound]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return Case(
        test.name,
        operator or proto.graph.node[0].op_type,
        proto,
        given,
        {name: np.asarray(value) for name, value in wanted.items()},
        test.rtol,
    )


def _parameters(proto: Any) -> set[str]:
    """The inputs of the one node of ``proto`` that ``PARAMETERS`` names."""
    from onnx import defs

    (node,) = proto.graph.node
    formal = defs.get_schema(node.op_type, domain=node.domain).inputs
    names = PARAMETERS.get(node.op_type, ())
    return {
        actual
        for position, actual in enumerate(node.input)
        if position < len(formal) and formal[position].name in names
    }
