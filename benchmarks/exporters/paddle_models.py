"""Paddle by paddle2onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Maker, Shapes, run

PACKAGES = ("paddlepaddle", "paddle2onnx")


def makers() -> dict[str, Maker]:
    import paddle
    from paddle import nn
    from paddle.nn import functional as F

    paddle.seed(0)

    class Function(nn.Layer):
        """A function as a layer."""

        def __init__(self, function: Any, **parts: Any) -> None:
            super().__init__()
            self.function = function
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Any) -> Any:
            return self.function(self, x)

    class Mobile(nn.Layer):
        """A block as PP-LCNet has them: depthwise, squeeze and excite, hard swish."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2D(3, 16, 3, 2, 1, bias_attr=False)
            self.norm = nn.BatchNorm2D(16)
            self.deep = nn.Conv2D(16, 16, 5, 1, 2, groups=16, bias_attr=False)
            self.squeeze, self.excite = nn.Conv2D(16, 4, 1), nn.Conv2D(4, 16, 1)
            self.point = nn.Conv2D(16, 32, 1)
            self.head = nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            x = F.hardswish(self.norm(self.stem(x)))
            x = F.hardswish(self.deep(x))
            s = F.adaptive_avg_pool2d(x, 1)
            x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(s))))
            x = F.adaptive_avg_pool2d(F.hardswish(self.point(x)), 1)
            return F.softmax(self.head(paddle.flatten(x, 1)))

    class Text(nn.Layer):
        """Columns of an image as a sequence, as in text recognition."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2D(3, 16, 3, (2, 1), 1)
            self.lstm = nn.LSTM(16, 12, direction="bidirect")
            self.head = nn.Linear(24, 20)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv(x)), (4, 1))
            x = paddle.transpose(paddle.squeeze(x, 2), [0, 2, 1])
            return F.softmax(self.head(self.lstm(x)[0]), 2)

    def first(layer: Any) -> nn.Layer:
        return Function(lambda m, x: m.layer(x)[0], layer=layer)

    image, row = [-1, 3, 32, 32], [-1, 6, 16]
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32), 2)
    models: dict[str, tuple[nn.Layer, list[int], str, list[int]]] = {
        "mobile": (Mobile(), image, "float32", [2, 3, 32, 32]),
        "text": (Text(), [-1, 3, 8, -1], "float32", [1, 3, 8, 20]),
        "lstm": (first(nn.LSTM(16, 8)), row, "float32", [2, 6, 16]),
        "gru": (first(nn.GRU(16, 8, direction="bidirect")), row, "float32", [2, 6, 16]),
        "encoder": (encoder, row, "float32", [2, 6, 16]),
        "attention": (Function(lambda m, x: m.a(x, x, x), a=nn.MultiHeadAttention(16, 4)), row,
                      "float32", [2, 6, 16]),
        "words": (nn.Sequential(nn.Embedding(50, 16), nn.LayerNorm(16), nn.Linear(16, 4)),
                  [-1, 6], "int64", [2, 6]),
        "bilinear": (Function(lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear")),
                     image, "float32", [1, 3, 32, 32]),
        "nearest": (Function(lambda m, x: F.interpolate(x, size=[20, 24], mode="nearest")),
                    image, "float32", [1, 3, 32, 32]),
        "bicubic": (Function(lambda m, x: F.interpolate(x, scale_factor=2, mode="bicubic")),
                    image, "float32", [1, 3, 32, 32]),
        "transposed": (nn.Conv2DTranspose(3, 4, 4, 2, 1), image, "float32", [1, 3, 32, 32]),
        "group_norm": (nn.Sequential(nn.Conv2D(3, 8, 1), nn.GroupNorm(2, 8),
                                     nn.InstanceNorm2D(8)), image, "float32", [1, 3, 32, 32]),
        "pools": (nn.Sequential(nn.AvgPool2D(3, 2, 1), nn.MaxPool2D(3, 2, 1),
                                nn.AdaptiveMaxPool2D(2)), image, "float32", [1, 3, 32, 32]),
        "slices": (Function(lambda m, x: paddle.concat([x[:, :2, ::2], x[:, 1:, 1::2]], 3)),
                   image, "float32", [1, 3, 32, 32]),
        "reduce": (Function(lambda m, x: [x.mean([1, 2]), x.argmax(1), x.topk(2, 1)[0],
                                          x.std(2), x.cumsum(1)]), row, "float32", [2, 6, 16]),
        "pads": (Function(lambda m, x: F.pad(x, [1, 2, 1, 0], mode="reflect")), image,
                 "float32", [1, 3, 32, 32]),
        "swish": (Function(lambda m, x: F.swish(x) + F.mish(x) + F.gelu(x) + F.softplus(x)),
                  row, "float32", [2, 6, 16]),
        "shuffle": (Function(lambda m, x: F.channel_shuffle(
            F.pixel_shuffle(paddle.tile(x, [1, 4, 1, 1]), 2), 3)), image, "float32",
            [1, 3, 8, 8]),
        "where": (Function(lambda m, x: paddle.where(x > 0, x, paddle.exp(x)).clip(-0.5, 2.0)),
                  row, "float32", [2, 6, 16]),
    }  # fmt: skip

    def export(name: str, opset: int) -> Maker:
        model, declared, dtype, shape = models[name]

        def make(path: Path) -> Shapes:
            model.eval()
            spec = paddle.static.InputSpec(declared, dtype, "x")
            paddle.onnx.export(
                model, str(path.with_suffix("")), [spec], opset_version=opset, optimize_tool="None"
            )
            return {"x": shape} if -1 in declared else {}

        return make

    found = {f"{name}_17": export(name, 17) for name in models}
    for name in ("mobile", "text", "encoder", "bilinear"):
        for opset in (11, 13):
            found[f"{name}_{opset}"] = export(name, opset)
    return found


if __name__ == "__main__":
    run(PACKAGES, makers, apart=True)
