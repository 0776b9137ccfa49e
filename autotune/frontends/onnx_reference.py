"""What the original model computes: by ONNX Runtime, and in float64 where that is in doubt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    may use (0: all).
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
        """Whether the model rounds on its way, where two right computations may part."""
        self.steps = _steps(known)
        """Of the outputs that are stored numbers times a scale, between two of those."""
        self._model = model
        self._simplified = simplified
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
            name: array.astype(np.float64) if array.dtype == np.float32 else array
            for name, array in inputs.items()
        }
        return _evaluator(in_double(self._simplified()))(wide)

    def in_integers(self, inputs: Arrays) -> Outputs:
        """What ONNX Runtime makes of a quantised model by its own kernels of integers.

        Raises its errors.
        """
        return _session(str(self.path), self.threads)(inputs)

    def nudged(self, inputs: Arrays, seed: int) -> Outputs:
        """What ONNX Runtime makes of the model with its floats, and those given, rounded otherwise.

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
    """A copy of ``proto`` with float64 wherever it says float32."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    def widen(tensor: Any) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def visit(graph: Any) -> None:
        for tensor in graph.initializer:
            widen(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    widen(attribute.t)
                if attribute.HasField("g"):
                    visit(attribute.g)
                cast = node.op_type == "Cast" and attribute.name == "to"
                if cast and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.DOUBLE

    copy = type(proto)()
    copy.CopyFrom(proto)
    visit(copy.graph)
    return copy
