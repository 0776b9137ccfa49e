"""Architectures that people bring, written shortly in plain torch: no torchvision, no transformers.

Weights are random; what is compared is how a compiler computes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def _convolution(
    inner: int, outer: int, size: int, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
) -> nn.Sequential:
    padding = (size - 1) // 2
    made: list[nn.Module] = [
        nn.Conv2d(inner, outer, size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]
    return nn.Sequential(*made, *([act()] if act else []))


class _Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inner, outer, 3, stride)
        self.second = _convolution(outer, outer, 3, act=None)
        same = stride == 1 and inner == outer
        self.skip = nn.Identity() if same else _convolution(inner, outer, 1, stride, act=None)

    def forward(self, x: Any) -> Any:
        return F.relu(self.second(self.first(x)) + self.skip(x))


class ResNet18(nn.Module):
    """He et al., 2016: four stages of two residual blocks; images of 3 channels to 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 64, 128, 256, 512]
        blocks: list[nn.Module] = []
        for stage, (inner, outer) in enumerate(zip(widths, widths[1:], strict=False)):
            blocks += [_Residual(inner, outer, 1 if stage == 0 else 2), _Residual(outer, outer, 1)]
        self.stem = nn.Sequential(_convolution(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, 1000)

    def forward(self, x: Any) -> Any:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class ResNet8(nn.Module):
    """Image classification of MLPerf Tiny (Banbury et al., 2021): images of 32x32 to 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        blocks = _Residual(16, 16, 1), _Residual(16, 32, 2), _Residual(32, 64, 2)
        self.features = nn.Sequential(_convolution(3, 16, 3), *blocks)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.features(x).mean((2, 3)))


class _Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, (width // 4 + 4) // 8 * 8)
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Any) -> Any:
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.up(F.relu(self.down(scale))))


class _Inverted(nn.Module):
    def __init__(self, inner: int, size: int, middle: int, outer: int, squeeze: bool, act: Any,
                 stride: int) -> None:  # fmt: skip
        super().__init__()
        parts: list[nn.Module] = []
        if middle != inner:
            parts.append(_convolution(inner, middle, 1, act=act))
        parts.append(_convolution(middle, middle, size, stride, middle, act))
        if squeeze:
            parts.append(_Squeeze(middle))
        self.path = nn.Sequential(*parts, _convolution(middle, outer, 1, act=None))
        self.add = stride == 1 and inner == outer

    def forward(self, x: Any) -> Any:
        return x + self.path(x) if self.add else self.path(x)


class MobileNetV3(nn.Module):
    """Howard et al., 2019, the small one: depthwise, squeeze and excitation, hard swish."""

    ROWS = [
        (3, 16, 16, True, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1), (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1), (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1), (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2), (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    ]  # fmt: skip
    """Kernel, middle and outer width, squeeze and excitation, activation, stride."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [_convolution(3, 16, 3, 2, act=nn.Hardswish)]
        inner = 16
        for size, middle, outer, squeeze, act, stride in self.ROWS:
            parts.append(_Inverted(inner, size, middle, outer, squeeze, act, stride))
            inner = outer
        self.features = nn.Sequential(*parts, _convolution(96, 576, 1, act=nn.Hardswish))
        self.head = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))

    def forward(self, x: Any) -> Any:
        return self.head(self.features(x).mean((2, 3)))


class ViT(nn.Module):
    """Dosovitskiy et al., 2021, of the tiny size: patches of 16, 12 layers of width 192."""

    def __init__(self, width: int = 192, heads: int = 3, layers: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Any) -> Any:
        seen = self.patches(x).flatten(2).transpose(1, 2)
        seen = torch.cat([self.token.expand(len(x), -1, -1), seen], 1) + self.positions
        return self.head(self.norm(self.encoder(seen)[:, 0]))


class LSTM(nn.Module):
    """Two layers, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0]


class DecoderLayer(nn.Module):
    """GPT-2's, with its keys and values in buffers that it writes to."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, heads, length, width // heads))

    def forward(self, states: Any, places: Any, mask: Any) -> Any:
        batch, count, width = states.shape
        query, key, value = (
            part.view(batch, count, self.heads, -1).transpose(1, 2)
            for part in self.project(self.before(states)).chunk(3, -1)
        )
        self.keys.index_copy_(2, places, key)
        self.values.index_copy_(2, places, value)
        mixed = F.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=mask)
        states = states + self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return states + self.down(F.gelu(self.up(self.between(states)), approximate="tanh"))


class Decoder(nn.Module):
    """GPT-2 in small: ids of ``count`` tokens at ``places`` to the logits of the last one."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2, length: int = 16,
                 vocabulary: int = 64) -> None:  # fmt: skip
        super().__init__()
        self.length = length
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, length) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Any, places: Any) -> Any:
        states = self.tokens(ids) + self.positions(places)
        mask = torch.arange(self.length)[None, :] <= places[:, None]
        for layer in self.layers:
            states = layer(states, places, mask)
        return F.linear(self.norm(states[:, -1]), self.tokens.weight)


def settled(model: nn.Module) -> nn.Module:
    """``model`` for inference, its batch norms drawn: fresh ones would do nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.eval()
