"""Torch by both of its exporters: TorchScript, and torch.export with ONNX Script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Maker, Shapes, run

PACKAGES = ("torch", "onnx")
SOME = ("onnxscript",)
"""What torch.export's way to ONNX needs, and TorchScript's does not."""


def makers() -> dict[str, Maker]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)

    class Function(nn.Module):
        """A function as a module."""

        def __init__(self, function: Any, **parts: nn.Module) -> None:
            super().__init__()
            self.function = function
            for name, part in parts.items():
                self.add_module(name, part)

        def forward(self, *values: Any) -> Any:
            return self.function(self, *values)

    class Block(nn.Module):
        """A residual block."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.a = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.b = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.na, self.nb = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.nb(self.b(torch.relu(self.na(self.a(x))))))

    class Vision(nn.Module):
        """Patches, a class token, positions and two layers."""

        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 32, 8, 8)
            self.token = nn.Parameter(torch.randn(1, 1, 32))
            self.place = nn.Parameter(torch.randn(1, 17, 32))
            layer = nn.TransformerEncoderLayer(
                32, 4, 64, batch_first=True, norm_first=True, activation="gelu"
            )
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            x = self.cut(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
            return self.head(self.layers(x)[:, 0])

    class Decoder(nn.Module):
        """One layer of a GPT with the keys and values of earlier tokens given, and returned."""

        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(100, 32), nn.Embedding(64, 32)
            self.norm, self.last = nn.LayerNorm(32), nn.LayerNorm(32)
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, tokens: Any, keys: Any, values: Any) -> Any:
            past, new = keys.shape[2], tokens.shape[1]
            place = torch.arange(past, past + new)
            x = self.words(tokens) + self.places(place)
            q, k, v = self.qkv(self.norm(x)).chunk(3, -1)

            def heads(t: Any) -> Any:
                return t.view(t.shape[0], t.shape[1], 4, 8).transpose(1, 2)

            k, v = torch.cat([keys, heads(k)], 2), torch.cat([values, heads(v)], 2)
            mask = torch.ones(new, past + new, dtype=torch.bool).tril(past)
            a = F.scaled_dot_product_attention(heads(q), k, v, attn_mask=mask)
            x = x + self.out(a.transpose(1, 2).reshape(x.shape))
            x = x + self.down(F.gelu(self.up(self.last(x)), approximate="tanh"))
            return x @ self.words.weight.T, k, v

    class Recurrent(nn.Module):
        def __init__(self, kind: Any, **options: Any) -> None:
            super().__init__()
            self.layers = kind(8, 12, batch_first=True, **options)

        def forward(self, x: Any) -> Any:
            return self.layers(x)[0]

    def function(call: Any, **parts: nn.Module) -> nn.Module:
        return Function(call, **parts)

    image, tokens = torch.randn(1, 3, 32, 32), torch.randn(2, 7, 32)
    steps = torch.randn(2, 6, 8)
    words = torch.randint(0, 100, (1, 3))
    past = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 5, 8)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False
    )
    small = torch.randn(2, 8, 6, 6)
    index = torch.tensor([[0, 2], [1, 1]])
    models: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "resnet": (nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(),
                                 nn.MaxPool2d(3, 2, 1), Block(8), Block(8),
                                 nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
                   (image,)),
        "lstm": (Recurrent(nn.LSTM, num_layers=2, bidirectional=True), (steps,)),
        "gru": (Recurrent(nn.GRU, bidirectional=True), (steps,)),
        "rnn": (Recurrent(nn.RNN, nonlinearity="relu"), (steps,)),
        "encoder": (encoder, (tokens,)),
        "vit": (Vision(), (image,)),
        "decoder": (Decoder(), (words, *past)),
        "nearest": (nn.Upsample(scale_factor=2), (small,)),
        "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (small,)),
        "aligned": (nn.Upsample(size=(9, 11), mode="bilinear", align_corners=True), (small,)),
        "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), (small,)),
        "group_norm": (nn.GroupNorm(4, 8), (small,)),
        "instance_norm": (nn.InstanceNorm2d(8, affine=True), (small,)),
        "layer_norm": (nn.LayerNorm([8, 6, 6]), (small,)),
        "einsum": (function(lambda m, a, b: torch.einsum("bij,bkj->bik", a, b)),
                   (tokens, torch.randn(2, 5, 32))),
        "scatter": (function(lambda m, x: x.scatter(1, index, 5.0)), (torch.randn(2, 4),)),
        "put": (function(lambda m, x: x.index_put((torch.tensor([0, 1]), torch.tensor([2, 3])),
                                                  torch.tensor([7.0, 8.0]))),
                (torch.randn(2, 4),)),
        "masked": (function(lambda m, x: x.masked_fill(x > 0, 0.5)), (small,)),
        "where": (function(lambda m, x: torch.where(x > 0, x, x.exp())), (small,)),
        "nonzero": (function(lambda m, x: torch.nonzero(x > 0)), (torch.randn(3, 4),)),
        "topk": (function(lambda m, x: x.topk(3)), (torch.randn(3, 9),)),
        "sort": (function(lambda m, x: x.sort(-1, descending=True)), (torch.randn(3, 9),)),
        "cumsum": (function(lambda m, x: x.cumsum(1)), (small,)),
        "pads": (function(lambda m, x: F.pad(x, (1, 2, 3, 1), "reflect")), (small,)),
        "unfold": (nn.Unfold(3, padding=1), (small,)),
        "shuffle": (nn.PixelShuffle(2), (small,)),
        "transposed": (nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), (small,)),
        "grid": (function(lambda m, x, g: F.grid_sample(x, g, align_corners=False)),
                 (small, torch.rand(2, 5, 5, 2))),
        "depthwise": (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(),
                                    nn.Conv2d(8, 16, 1), nn.SiLU()), (small,)),
        "conv1d": (nn.Sequential(nn.Conv1d(8, 4, 3, dilation=2), nn.ELU(), nn.PReLU()),
                   (torch.randn(2, 8, 20),)),
        "conv3d": (nn.Sequential(nn.Conv3d(2, 4, 3), nn.AvgPool3d(2)),
                   (torch.randn(1, 2, 8, 8, 8),)),
        "embedding": (nn.EmbeddingBag(20, 8, mode="mean"),
                      (torch.tensor([[1, 2, 3], [4, 5, 6]]),)),
        "attention": (function(lambda m, x: m.a(x, x, x)[0],
                               a=nn.MultiheadAttention(32, 4, batch_first=True)), (tokens,)),
        "reduce": (function(lambda m, x: (x.std(1), x.var((2, 3)), x.logsumexp(1), x.norm(dim=1),
                                          x.amax(1), x.argmax(1), x.prod(2))), (small,)),
        "integers": (function(lambda m, x: (x // 3, x % 3, x.float().round())),
                     (torch.randint(0, 9, (3, 4)),)),
        "roll": (function(lambda m, x: x.roll((1, 2), (2, 3))), (small,)),
        "slices": (function(lambda m, x: x[:, ::2, 1:-1].flip(1).repeat(1, 2, 1, 1)), (small,)),
        "erf": (function(lambda m, x: torch.special.expit(torch.erf(x)) + torch.atan2(x, x + 3)),
                (small,)),
    }  # fmt: skip
    halves = {"resnet", "encoder", "vit", "gru", "group_norm", "layer_norm", "bilinear"}

    def script(model: nn.Module, inputs: Any, opset: int, dynamic: bool = False) -> Maker:
        def make(path: Path) -> Shapes:
            names = [f"x{i}" for i in range(len(inputs))]
            axes = {name: {0: f"n{name}"} for name in names} if dynamic else None
            torch.onnx.export(
                model.eval(),
                inputs,
                path,
                opset_version=opset,
                dynamo=False,
                input_names=names,
                dynamic_axes=axes,
            )
            return {n: v.shape for n, v in zip(names, inputs, strict=True)} if dynamic else {}

        return make

    def graph(model: nn.Module, inputs: Any, opset: int, dynamic: bool = False) -> Maker:
        def make(path: Path) -> Shapes:
            names = [f"x{i}" for i in range(len(inputs))]
            shapes = None
            if dynamic:
                shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
                if isinstance(model, Function):
                    shapes = (shapes,)
            torch.onnx.export(
                model.eval(),
                inputs,
                path,
                opset_version=opset,
                dynamo=True,
                input_names=names,
                dynamic_shapes=shapes,
                verbose=False,
            )
            return {n: v.shape for n, v in zip(names, inputs, strict=True)} if dynamic else {}

        return make

    def as_type(inputs: Any, dtype: Any) -> Any:
        return tuple(v.to(dtype) if v.is_floating_point() else v for v in inputs)

    import copy

    found: dict[str, Maker] = {}
    for name, (model, inputs) in models.items():
        found[f"script_{name}"] = script(model, inputs, 17)
        found[f"dynamo_{name}"] = graph(model, inputs, 18)
    for name in ("resnet", "lstm", "encoder", "vit"):
        model, inputs = models[name]
        for opset in (9, 11, 13):
            found[f"script{opset}_{name}"] = script(model, inputs, opset)
        for opset in (20, 23):
            found[f"dynamo{opset}_{name}"] = graph(model, inputs, opset)
        twice = tuple(v.repeat(2, *(1,) * (v.dim() - 1)) for v in inputs)
        found[f"script_open_{name}"] = script(model, twice, 17, dynamic=True)
        found[f"dynamo_open_{name}"] = graph(model, twice, 18, dynamic=True)
    for name in sorted(halves):
        model, inputs = models[name]
        for suffix, dtype in (("half", torch.float16), ("bfloat", torch.bfloat16)):
            narrow = copy.deepcopy(model).to(dtype)
            found[f"script_{suffix}_{name}"] = script(narrow, as_type(inputs, dtype), 17)
            found[f"dynamo_{suffix}_{name}"] = graph(narrow, as_type(inputs, dtype), 18)
    found["dynamo23_decoder"] = graph(*models["decoder"], 23)
    return found


if __name__ == "__main__":
    run(PACKAGES, makers, some=SOME)
