"""What an exported program computes: by torch, and in float64 where that is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotune.frontends.torch_program import Program

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays

    Outputs = dict[str, Any]


class TorchReference:
    """Computes the outputs of a program, by name, from arrays by name."""

    engine = "torch"

    def __init__(self, program: Program) -> None:
        self._program = program

    def __call__(self, inputs: Arrays) -> Outputs:
        """The outputs for ``inputs``; raises torch's error where they do not fit."""
        return self._run(self._program.graph, dict(self._program.bound), inputs)

    def double(self, inputs: Arrays) -> Outputs:
        """The outputs with every float32 computed in float64: slow, and exact."""
        import numpy as np
        import torch

        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        graph = self._program.graph
        copy = torch.fx.Graph()
        copy.output(copy.graph_copy(graph.graph, {}))
        for node in list(copy.nodes):
            if "_assert" in str(node.target):
                copy.erase_node(node)
                continue
            node.args = torch.fx.node.map_aggregate(node.args, wide)
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, wide)
        bound = {
            name: tensor.double() if tensor.dtype == torch.float32 else tensor
            for name, tensor in self._program.bound.items()
        }
        given = {
            name: array.astype(np.float64) if array.dtype == np.float32 else array
            for name, array in inputs.items()
        }
        return self._run(torch.fx.GraphModule(graph, copy), bound, given)

    def _run(self, graph: Any, bound: dict[str, Any], inputs: Arrays) -> Outputs:
        import numpy as np
        import torch

        program = self._program
        known = bound | dict(program.fixed)
        for place, name in program.inputs.items():
            # A copy: torch warns of arrays that must not be written to.
            known[place] = torch.from_numpy(np.array(inputs[name]))
        places = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
        with torch.no_grad():
            values = graph(*(known[place] for place in places))
        return {
            name: value.detach().resolve_conj().numpy()
            for name, value in zip(program.outputs, values, strict=True)
            if name is not None
        }
