"""Small torch modules, one of each kind that users bring."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from benchmarks.torch_architectures import Decoder

__all__ = ["Convolutions", "Decoder", "Masked", "Recurrent"]


class Convolutions(nn.Module):
    """Batch norm, a depthwise convolution, a residual sum, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Linear(16, 10)
        nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(self.norm.running_var, 0.5, 1.5)

    def forward(self, image: Any) -> Any:
        seen = F.max_pool2d(F.relu(self.norm(self.first(image))), 2)
        seen = F.hardswish(self.depthwise(seen)) + seen
        return self.last(F.adaptive_avg_pool2d(seen, 1).flatten(1))


class Recurrent(nn.Module):
    """Two layers of LSTM in both directions; the result is a tree of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)

    def forward(self, sequence: Any) -> Any:
        states, (hidden, cell) = self.lstm(sequence)
        return {"states": states, "last": (hidden, cell)}


class Masked(nn.Module):
    """An encoder whose positions are counted by its mask, as GPT-2's are."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, ids: Any, mask: Any) -> Any:
        positions = (mask.cumsum(-1) - 1).clamp(0)
        known = self.words(ids) + self.words(positions)
        return self.layer(known, src_key_padding_mask=~mask)
