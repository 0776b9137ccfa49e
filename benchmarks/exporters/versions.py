"""The same models at every opset by ``onnx.version_converter``, and quantised by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Maker, Shapes, run

PACKAGES = ("onnx", "onnxruntime")
FIRST = 7


def models() -> dict[str, tuple[Any, dict[str, tuple[int, ...]]]]:
    """Small models at opset 13, with the shapes of their inputs."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    node = helper.make_node

    def weight(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def made(nodes: list[Any], shape: tuple[int, ...], weights: dict[str, Any]) -> Any:
        graph = helper.make_graph(
            nodes, "made",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    cnn = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], name="conv1"),
        node("Relu", ["c"], ["r"], name="relu1"),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool1"),
        node("Conv", ["p", "w2"], ["c2"], pads=[1, 1, 1, 1], name="conv2"),
        node("Add", ["c2", "p"], ["a"], name="add1"),
        node("LeakyRelu", ["a"], ["k"], alpha=0.1, name="leaky1"),
        node("Sigmoid", ["k"], ["s"], name="sig1"),
        node("Mul", ["k", "s"], ["m"], name="mul1"),
        node("Concat", ["m", "a"], ["j"], axis=1, name="concat1"),
        node("AveragePool", ["j"], ["v"], kernel_shape=[2, 2], strides=[2, 2], name="pool2"),
        node("GlobalAveragePool", ["v"], ["g"], name="pool3"),
        node("Flatten", ["g"], ["f"], name="flat"),
        node("Gemm", ["f", "u", "e"], ["l"], transB=1, name="gemm1"),
        node("Softmax", ["l"], ["y"], axis=1, name="soft1"),
    ]
    layers = [
        node("MatMul", ["x", "w"], ["q"], name="mm1"),
        node("Transpose", ["q"], ["t"], perm=[0, 2, 1], name="t1"),
        node("MatMul", ["q", "t"], ["s"], name="mm2"),
        node("Softmax", ["s"], ["p"], axis=-1, name="soft1"),
        node("MatMul", ["p", "q"], ["a"], name="mm3"),
        node("ReduceMean", ["a"], ["r"], axes=[-1], keepdims=1, name="mean1"),
        node("Sub", ["a", "r"], ["d"], name="sub1"),
        node("MatMul", ["d", "v"], ["h"], name="mm4"),
        node("Relu", ["h"], ["y"], name="relu1"),
    ]
    shapes = {"cnn": (1, 3, 16, 16), "layers": (2, 6, 8)}
    return {
        "cnn": (made(cnn, shapes["cnn"], {"w": weight(8, 3, 3, 3), "b": weight(8),
                     "w2": weight(8, 8, 3, 3), "u": weight(10, 16), "e": weight(10)}),
                {"x": shapes["cnn"]}),
        "layers": (made(layers, shapes["layers"], {"w": weight(8, 8), "v": weight(8, 12)}),
                   {"x": shapes["layers"]}),
    }  # fmt: skip


def makers() -> dict[str, Maker]:
    import numpy as np
    import onnx
    from onnx import version_converter
    from onnxruntime import quantization

    rng = np.random.default_rng(0)
    found: dict[str, Maker] = {}

    def converted(proto: Any, opset: int) -> Maker:
        def make(path: Path) -> Shapes:
            made = version_converter.convert_version(proto, opset)
            made.ir_version = min(made.ir_version, 12)
            onnx.save(made, path)
            return {}

        return make

    class Reader(quantization.CalibrationDataReader):
        """Eight random inputs."""

        def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
            self.left = [
                {n: rng.uniform(-1, 1, s).astype(np.float32) for n, s in shapes.items()}
                for _ in range(8)
            ]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    def static(proto: Any, shapes: Any, form: str, **options: Any) -> Maker:
        def make(path: Path) -> Shapes:
            source = path.with_suffix(".float")
            onnx.save(proto, source)
            quantization.quantize_static(
                source, path, Reader(shapes),
                quant_format=getattr(quantization.QuantFormat, form), **options,
            )  # fmt: skip
            return {}

        return make

    def dynamic(proto: Any, **options: Any) -> Maker:
        def make(path: Path) -> Shapes:
            source = path.with_suffix(".float")
            onnx.save(proto, source)
            quantization.quantize_dynamic(source, path, **options)
            return {}

        return make

    def optimised(proto: Any, level: str) -> Maker:
        def make(path: Path) -> Shapes:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(path)
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return {}

        return make

    kinds = {
        "u8s8": dict(activation_type=quantization.QuantType.QUInt8,
                     weight_type=quantization.QuantType.QInt8),
        "s8s8": dict(activation_type=quantization.QuantType.QInt8,
                     weight_type=quantization.QuantType.QInt8),
        "u8u8": dict(activation_type=quantization.QuantType.QUInt8,
                     weight_type=quantization.QuantType.QUInt8),
        "u16u8": dict(activation_type=quantization.QuantType.QUInt16,
                      weight_type=quantization.QuantType.QUInt8),
    }  # fmt: skip
    for name, (proto, shapes) in models().items():
        for opset in range(FIRST, onnx.defs.onnx_opset_version() + 1):
            found[f"{name}_opset{opset}"] = converted(proto, opset)
        for kind, types in kinds.items():
            for channels in (False, True):
                for form in ("QDQ", "QOperator"):
                    if kind == "u16u8" and (form == "QOperator" or channels):
                        continue
                    label = f"{name}_{form.lower()}_{kind}{'_channels' if channels else ''}"
                    found[label] = static(proto, shapes, form, per_channel=channels, **types)
        for channels in (False, True):
            label = f"{name}_dynamic{'_channels' if channels else ''}"
            found[label] = dynamic(proto, per_channel=channels)
        found[f"{name}_basic"] = optimised(proto, "ORT_ENABLE_BASIC")
        found[f"{name}_extended"] = optimised(proto, "ORT_ENABLE_EXTENDED")
    return found


if __name__ == "__main__":
    run(PACKAGES, makers)
