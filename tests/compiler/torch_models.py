"""Small torch modules, one of each kind that users bring."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


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
