"""What the original model computes: by ONNX Runtime, and in float64 where that is in doubt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.frontends.onnx_bfloat16 import holds_bfloat16, retyped, rounding

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays

    Outputs = dict[str, Any]

QUANTISED = ("quantize", "qlinear", "qgemm", "qattention", "qembed", "integer")
"""Parts of the names of operators that round, or are of numbers that were.

Around some of them ONNX Runtime replaces operators of floats by its own of integers.
"""

NUDGE = 2.0**-22
"""By how much floats are moved to see what rounding them otherwise comes to: two of their steps."""


class OnnxReference:
    """Computes the outputs of an ONNX model, by name, from arrays by name.

    ``known`` is its outline; ``model`` and ``simplified`` make it and what it is simplified to,
    where they are needed. The engine is made at the first call. ``engine`` is then "onnxruntime",
    or "onnx.reference" where ONNX Runtime refuses the model. ``threads`` is how many ONNX Runtime
    may use (0: all). A model with bfloat16 numbers is computed in float32, its outputs alone
    rounded: ONNX Runtime has hardly an operator for such numbers, and ``onnx.reference`` adds them
    up in as many bits as they have.
    """

    def __init__(
        self,
        path: Path,
        known: Any,
        model: Callable[[], Any],
        simplified: Callable[[], Any],
        threads: int = 0,
    ) -> None:
        self.path = path
        self.threads = threads
        self.engine = ""
        self.quantised = any(
            part in node.op_type.lower() for node in known.graph.node for part in QUANTISED
        )
        self.short = holds_bfloat16(known)
        self.steps = _steps(known)
        """Of the outputs that are stored numbers times a scale, between two of those."""
        self._model = model
        self._simplified = simplified
        self.rounds = self.quantised or self.short
        """Whether the model rounds on its way, where two right computations may part."""
        self._run: Callable[[Arrays], Outputs] | None = None

    def __call__(self, inputs: Arrays) -> Outputs:
        """The outputs for ``inputs``; raises the engine's error where they do not fit."""
        if self._run is None:
            self._run = self._make()
        return self._run(inputs)

    def evaluate(self) -> None:
        """From now on by ``onnx.reference``: for what ONNX Runtime loads but cannot run."""
        self.engine = "onnx.reference"
        self._run = _evaluator(self._model())

    def release(self) -> None:
        """Give back the memory of the engine, which is made again at the next call."""
        self._run = None

    def double(self, inputs: Arrays) -> Outputs:
        """The outputs with every float32 computed in float64: slow, and exact but for its faults.

        The simplified model is evaluated, since ``onnx.reference`` gets some originals wrong that
        it gets right once shapes are folded: trust this only where the original roughly agrees.
        Raises the errors of ``onnx.reference`` for operators that it does not know.
        """
        import numpy as np

        wide = {
            name: array.astype(np.float64) if array.dtype.name in ("float32", "bfloat16") else array
            for name, array in inputs.items()
        }
        return _evaluator(in_double(self._simplified()))(wide)

    def other_way(self, inputs: Arrays) -> Outputs:
        """What ONNX Runtime makes of a model that rounds by another right way.

        Of bfloat16 numbers: rounded after every operator. Of a quantised model: by its own kernels
        of integers. Raises its errors.
        """
        if self.short:
            return _in_float32(rounding(self._model()), self.threads)(inputs)
        return _session(str(self.path), self.threads)(inputs)

    def nudged(self, inputs: Arrays, seed: int) -> Outputs:
        """What ONNX Runtime makes of a quantised model with its floats, and those given, rounded
        otherwise.

        Raises its errors, and protobuf's of a model that is too large to be copied.
        """
        import numpy as np
        from onnx import TensorProto, numpy_helper

        from autotune.frontends.onnx_file import tensors_of

        generator = np.random.default_rng(seed)

        def moved(array: Any) -> Any:
            if array.dtype != np.float32:
                return array
            way = generator.choice((1 - NUDGE, 1.0, 1 + NUDGE), array.shape)
            return (array * way).astype(np.float32)

        model = self._model()
        # A number just beside a whole one is no power of a negative number.
        powers = {node.input[1] for node in model.graph.node if node.op_type == "Pow"}
        for tensor in tensors_of(model.graph):
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in powers:
                array = moved(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        given = {name: moved(np.asarray(array)) for name, array in inputs.items()}
        run = _session(model.SerializeToString(), self.threads, as_written=self.quantised)
        return run(given)

    def _make(self) -> Callable[[Arrays], Outputs]:
        if self.engine == "onnx.reference":
            return _evaluator(self._model())
        try:
            # By path, since weights may lie beside the file. A quantised model as it is written:
            # else it is computed in integers, which round at other places, and on processors
            # without instructions for it sums of products are cut at 16 bits.
            if self.short:
                run = _in_float32(_never_short(self._model()), self.threads)
            else:
                run = _session(str(self.path), self.threads, as_written=self.quantised)
        except Exception:  # its errors share no root; the reference evaluator may know more
            self.engine = "onnx.reference"
            return _evaluator(self._model())
        self.engine = "onnxruntime"
        return run


def _steps(model: Any) -> dict[str, float]:
    """The scales of outputs that ``DequantizeLinear`` makes, the largest of each."""
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    found: dict[str, float] = {}
    for node in model.graph.node:
        scale = weights.get(node.input[1]) if node.op_type == "DequantizeLinear" else None
        if scale is not None and node.output[0] in outputs:
            found[node.output[0]] = float(abs(numpy_helper.to_array(scale)).max())
    return found


def run_bytes(proto: Any, inputs: Arrays) -> Outputs:
    """The outputs of a model that is no file, by ONNX Runtime; raises its errors."""
    return _session(proto.SerializeToString())(inputs)


def _session(
    model: str | bytes, threads: int = 0, *, as_written: bool = False
) -> Callable[[Arrays], Outputs]:
    """What runs ``model``, a path or its bytes, by ONNX Runtime; raises its errors.

    ``as_written`` leaves out what makes other operators of those in the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _evaluator(proto: Any) -> Callable[[Arrays], Outputs]:
    """What computes ``proto`` by ``onnx.reference``."""

    def run(inputs: Arrays) -> Outputs:
        import numpy as np
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(proto)
        with np.errstate(all="ignore"):
            return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))

    return run


def in_double(proto: Any) -> Any:
    """A copy of ``proto`` with float64 wherever it says float32 or bfloat16."""
    from onnx import TensorProto

    double = TensorProto.DOUBLE
    return retyped(proto, {TensorProto.FLOAT: double, TensorProto.BFLOAT16: double})


def _never_short(proto: Any) -> Any:
    """A copy of ``proto`` in float32 wherever it says bfloat16, whose outputs alone are rounded."""
    from onnx import TensorProto

    if any(node.op_type == "BitCast" for node in proto.graph.node):
        raise ValueError("other numbers have other bits")
    copy = retyped(proto, {TensorProto.BFLOAT16: TensorProto.FLOAT})
    for made, value in zip(copy.graph.output, proto.graph.output, strict=True):
        made.type.tensor_type.elem_type = value.type.tensor_type.elem_type
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            _cast_output(copy.graph, made, TensorProto.BFLOAT16)
    return copy


def _cast_output(graph: Any, value: Any, code: int) -> None:
    """The output ``value`` of ``graph`` in the type ``code``, by another name."""
    from onnx import helper

    name = f"{value.name}/returned"
    graph.node.append(helper.make_node("Cast", [value.name], [name], to=code))
    value.name, value.type.tensor_type.elem_type = name, code


def _in_float32(proto: Any, threads: int) -> Callable[[Arrays], Outputs]:
    """What runs ``proto`` by ONNX Runtime, which numpy cannot hand bfloat16 numbers to.

    They go in and come out as float32, which holds them all. Raises its errors.
    """
    import numpy as np
    from onnx import TensorProto, helper

    short, wide = TensorProto.BFLOAT16, TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(short)
    copy = type(proto)()
    copy.CopyFrom(proto)
    for value in copy.graph.input:
        if value.type.tensor_type.elem_type == short:
            value.type.tensor_type.elem_type = wide
    kinds = [value.type.tensor_type.elem_type for value in copy.graph.output]
    for value, kind in zip(copy.graph.output, kinds, strict=True):
        if kind == short:
            _cast_output(copy.graph, value, wide)
    engine = _session(copy.SerializeToString(), threads, as_written=True)
    names = [value.name.split("/returned")[0] for value in copy.graph.output]

    def run(inputs: Arrays) -> Outputs:
        given = {n: a.astype(np.float32) if a.dtype == dtype else a for n, a in inputs.items()}
        found = engine(given).values()
        return {
            name: array.astype(dtype) if kind == short else array
            for name, array, kind in zip(names, found, kinds, strict=True)
        }

    return run
