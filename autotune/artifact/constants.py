"""Which outputs of a model are no result of anything."""

from __future__ import annotations

from typing import Any

from autotune.graph.model import FusedModel


def constant_outputs(fused: FusedModel) -> tuple[str, ...]:
    """Names of the outputs that are weights and no result of anything."""
    from tvm import relax

    from search_spaces.graph.expressions import is_constant

    main = fused.module["main"]
    values = {b.var: b.value for block in main.body.blocks for b in block.bindings}

    def root(value: Any) -> Any:
        while value in values:
            value = values[value]
        return value

    result = root(main.body.body)
    results = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    named = zip(fused.outputs, map(root, results), strict=True)
    return tuple(spec.name for spec, value in named if is_constant(value))
