"""A graph that TorchDynamo captured: compiled when it is called, for what it is called with."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

from autotune.dynamo.options import Options
from autotune.dynamo.specialised import Specialised
from autotune.errors import AutotuneError
from autotune.frontends.onnx_file import first_line


class Graph:
    """What ``torch.compile`` calls in the place of a captured graph.

    A call with new shapes or new weights compiles the graph for those and returns what eager
    PyTorch returns; calls after that run what was compiled. What cannot be compiled runs by eager
    PyTorch ever after, and one warning says why. Safe to call from several threads.
    """

    def __init__(self, module: Any, options: Options) -> None:
        """``module`` is the ``torch.fx.GraphModule`` of the graph."""
        import torch

        self._module = module
        self._options = options
        self._made: dict[tuple[Any, ...], list[Specialised]] = {}
        self._changing: set[int] = set()
        self._eager = False
        self._warned = False
        self._lock = threading.Lock()
        self._tensor = torch.Tensor
        self._symbolic = any(_is_symbolic(node) for node in module.graph.nodes)

    def __call__(self, *arguments: Any) -> Any:
        """The outputs of the graph, a tuple."""
        key = self._shapes(arguments) if self._symbolic else ()
        for made in self._made.get(key, ()):
            outputs = made(arguments)
            if outputs is not None:
                return outputs
        if self._eager:
            return self._module(*arguments)
        with self._lock:
            for made in self._made.get(key, ()):
                if made.accepts(arguments):
                    # Compiled meanwhile by another thread; or, rarely, two arguments, one of which
                    # is written to, are views of one tensor.
                    outputs = made(arguments)
                    return self._module(*arguments) if outputs is None else outputs
            if not self._eager:
                return self._specialised(arguments)
        return self._module(*arguments)

    def _shapes(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """What of the arguments TorchDynamo leaves open: it checks shapes where it leaves none."""
        if not self._symbolic:
            return ()
        return tuple(
            (tuple(one.shape), one.stride()) if isinstance(one, self._tensor) else one
            for one in arguments
        )

    def _specialised(self, arguments: Sequence[Any]) -> Any:
        from autotune.dynamo.specialise import draft

        self._forget(arguments)
        if sum(map(len, self._made.values())) >= self._options.specialisations:
            self._warn(
                f"it was compiled for {self._options.specialisations} sets of shapes and weights "
                "already; the option specialisations allows more"
            )
            return self._module(*arguments)
        try:
            made = draft(self._module, arguments, self._weights(arguments), self._options)
        except Exception as error:  # torch and TVM raise anything for what they cannot compile
            return self._give_up(error)(*arguments)
        found, returned = made.confirmed(arguments)
        if isinstance(found, Specialised):
            self._made.setdefault(self._shapes(arguments), []).append(found)
        else:
            self._give_up(found)
        return returned

    def _weights(self, arguments: Sequence[Any]) -> set[int]:
        """Which arguments are parameters and buffers that nothing writes to."""
        return {
            i for i, one in enumerate(arguments)
            if i not in self._changing and _is_weight(one)
        }  # fmt: skip

    def _forget(self, arguments: Sequence[Any]) -> None:
        """Drop what was compiled with weights that changed; buffers that change are no weights."""
        import torch

        for made in self._made.values():
            for one in list(made):
                changed = one.changed(arguments)
                if changed:
                    made.remove(one)
                for i in changed:
                    if not isinstance(arguments[i], torch.nn.Parameter):
                        self._changing.add(i)

    def _give_up(self, error: Exception) -> Any:
        self._eager = True
        self._made.clear()
        reason = str(error)
        if not isinstance(error, AutotuneError):
            reason = f"{type(error).__name__}: {first_line(error)}"
        self._warn(reason)
        return self._module

    def _warn(self, reason: str) -> None:
        if self._warned:
            return
        self._warned = True
        calls = sum(node.op.startswith("call") for node in self._module.graph.nodes)
        warnings.warn(
            f"autotune leaves a graph of {calls} operators to eager PyTorch: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )


def _is_weight(value: Any) -> bool:
    import torch

    if not isinstance(value, torch.Tensor) or value.is_inference():
        return False
    # TorchDynamo marks the parameters and buffers of the modules that it looked into.
    static = getattr(value, "_dynamo_static_input_type", None) is not None
    return static or isinstance(value, torch.nn.Parameter)


def _is_symbolic(node: Any) -> bool:
    import torch

    value = node.meta.get("example_value", node.meta.get("val"))
    if isinstance(value, torch.Tensor):
        return any(not isinstance(extent, int) for extent in value.shape)
    return node.op == "placeholder" and isinstance(value, torch.SymInt | torch.SymFloat)
