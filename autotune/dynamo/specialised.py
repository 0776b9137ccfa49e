"""One graph for one set of shapes and weights, compiled: what is called in the place of eager."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any

from autotune.dynamo.boundary import Giver, disjoint, spans

if TYPE_CHECKING:
    from autotune.runtime import Machine

ALIGNMENT = 64
"""Bytes: compiled code may read whole vectors from where an input begins."""

_version = attrgetter("_version")


class Specialised:
    """A compiled graph. ``weights`` are the arguments that are part of it, by position.

    It is for the arguments that it was made with: the same weights, the same shapes.
    """

    def __init__(
        self,
        machine: Machine,
        arguments: Sequence[Any],
        weights: Collection[int],
        written: Sequence[tuple[int, int]],
        shared: Collection[int],
        outputs: Sequence[Giver],
    ) -> None:
        """``written`` pairs an argument with the result that it is to hold after a call.

        ``shared`` are the results that the machine does not make anew: inputs and weights.
        """
        import torch

        self._machine = machine
        self._weights = sorted(weights)
        self._bound = [arguments[i] for i in self._weights]
        self._versions = list(map(_version, self._bound))
        self._given = [
            i
            for i, value in enumerate(arguments)
            if isinstance(value, torch.Tensor) and i not in weights
        ]
        self._sizes = spans([arguments[i] for i in self._given])
        self._written = tuple(written)
        self._shared = tuple(shared)
        self._outputs = tuple(outputs)

    def accepts(self, arguments: Sequence[Any]) -> bool:
        """Whether the weights are those that were compiled in, unchanged since."""
        weights = [arguments[i] for i in self._weights]
        return all(map(is_, weights, self._bound)) and (
            list(map(_version, weights)) == self._versions
        )

    def changed(self, arguments: Sequence[Any]) -> set[int]:
        """Which of its weights were written to since it was compiled."""
        pairs = zip(self._weights, self._bound, self._versions, strict=True)
        return {i for i, bound, was in pairs if arguments[i] is bound and bound._version != was}

    def separate(self, arguments: Sequence[Any]) -> bool:
        """Whether nothing that is written to shares memory with another argument."""
        if not self._written:
            return True
        pointers = [arguments[i].data_ptr() for i in self._given]
        return disjoint(pointers, self._sizes)

    def __call__(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """What eager would return, and arguments written to as eager would."""
        results = results_of(self._machine, [arguments[i] for i in self._given])
        for result in self._shared:
            results[result] = results[result].clone()
        for place, result in self._written:
            arguments[place].copy_(results[result])
        return tuple([give(arguments, results) for give in self._outputs])


def results_of(machine: Machine, tensors: Sequence[Any]) -> list[Any]:
    """What ``machine`` computes of ``tensors``, which are copied where it could not read them."""
    given = []
    for tensor in tensors:
        if tensor.data_ptr() % ALIGNMENT or not tensor.is_contiguous():
            tensor = tensor.contiguous().clone()
        given.append(tensor)
    result = machine(*given)
    # One output comes as a tensor, several as an array of TVM's.
    return [result] if hasattr(result, "data_ptr") else list(result)
