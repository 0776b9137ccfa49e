"""Models with recurrences, made here with seeded random weights: what OCR and speech models do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class _Graph:
    """Grows an ONNX graph; weights are uniform, scaled as torch begins with them."""

    def __init__(self, seed: int = 0) -> None:
        import numpy as np

        self._rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int, fan: int) -> str:
        values = self._rng.uniform(-1, 1, shape) * fan**-0.5
        return self.constant(values.astype("float32"))

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        from onnx import helper

        name = f"v{len(self.nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return name

    def convolution(self, x: str, shape: tuple[int, ...], stride: list[int], pads: int) -> str:
        out, inputs, height, width = shape
        fan = inputs * height * width
        weights = self.weight(*shape, fan=fan), self.weight(out, fan=fan)
        pad = [pads, width // 2, pads, width // 2]
        return self.node("Relu", self.node("Conv", x, *weights, strides=stride, pads=pad))

    def recurrence(
        self, operator: str, x: str, width: int, size: int, both: bool, **attributes: Any
    ) -> str:
        """[steps, batch, width] to [steps, batch, directions * size]."""
        import numpy as np

        directions = 2 if both else 1
        rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[operator] * size
        made = self.node(
            operator,
            x,
            self.weight(directions, rows, width, fan=size),
            self.weight(directions, rows, size, fan=size),
            self.weight(directions, 2 * rows, fan=size),
            hidden_size=size,
            direction="bidirectional" if both else "forward",
            **attributes,
        )
        turned = self.node("Transpose", made, perm=[0, 2, 1, 3])
        return self.node("Reshape", turned, self.constant(np.array([0, 0, -1])))

    def linear(self, x: str, width: int, outputs: int) -> str:
        product = self.node("MatMul", x, self.weight(width, outputs, fan=width))
        return self.node("Add", product, self.weight(outputs, fan=width))

    def save(self, path: Path, shape: tuple[int, ...], result: str) -> None:
        import onnx
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [onnx.ValueInfoProto(name=result)],
            self.tensors,
        )
        opset = [helper.make_opsetid("", 17)]
        proto = helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(proto), path)


def crnn(path: Path) -> None:
    """A recogniser of text: lines of 48 x 320 pixels, 80 steps of two layers in both directions."""
    import numpy as np

    g = _Graph()
    x = g.convolution("x", (32, 3, 3, 3), [2, 2], 1)
    x = g.convolution(x, (64, 32, 3, 3), [2, 2], 1)
    x = g.convolution(x, (128, 64, 3, 3), [2, 1], 1)
    x = g.convolution(x, (256, 128, 3, 3), [2, 1], 1)
    x = g.convolution(x, (256, 256, 3, 1), [1, 1], 0)
    x = g.node("Squeeze", x, g.constant(np.array([2])))
    x = g.node("Transpose", x, perm=[2, 0, 1])
    x = g.recurrence("LSTM", x, 256, 256, True)
    x = g.recurrence("LSTM", x, 512, 256, True)
    g.save(path, (1, 3, 48, 320), g.node("Softmax", g.linear(x, 512, 1000), axis=-1))


def speech(path: Path) -> None:
    """An encoder of speech: 1000 steps of 80 features through three layers, forward."""
    g = _Graph()
    x, width = "x", 80
    for _ in range(3):
        x, width = g.recurrence("LSTM", x, width, 320, False), 320
    g.save(path, (1000, 1, 80), g.linear(x, 320, 64))


def tagger(path: Path) -> None:
    """Two layers of GRU in both directions over four sequences of 200 steps."""
    g = _Graph()
    x = g.recurrence("GRU", "x", 100, 128, True, linear_before_reset=1)
    x = g.recurrence("GRU", x, 256, 128, True, linear_before_reset=1)
    g.save(path, (200, 4, 100), g.linear(x, 256, 32))


def one(operator: str, steps: int, size: int, batch: int = 1) -> Callable[[Path], None]:
    """A single recurrence, as wide as its state."""

    def make(path: Path) -> None:
        g = _Graph()
        attributes = {"linear_before_reset": 1} if operator == "GRU" else {}
        result = g.recurrence(operator, "x", size, size, False, **attributes)
        g.save(path, (steps, batch, size), result)

    return make


MODELS: dict[str, Callable[[Path], None]] = {"crnn": crnn, "speech": speech, "tagger": tagger}
