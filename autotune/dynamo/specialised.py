"""One graph for one set of shapes and weights, compiled: what is called in the place of eager."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter, is_, itemgetter
from typing import TYPE_CHECKING, Any

from autotune.dynamo.boundary import Giver, disjoint, spans

if TYPE_CHECKING:
    from autotune.machine import Machine

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
        outputs: Sequence[Giver] | None,
    ) -> None:
        """``written`` pairs an argument with the result that it is to hold after a call.

        ``shared`` are the results that the machine does not make anew: inputs and weights. Without
        ``outputs`` the results are what is returned.
        """
        import torch

        self._machine = machine
        self._weights = sorted(weights)
        self._bound = tuple(arguments[i] for i in self._weights)
        self._versions = list(map(_version, self._bound))
        given = [
            i
            for i, value in enumerate(arguments)
            if isinstance(value, torch.Tensor) and i not in weights
        ]
        self._pick_weights = _picker(self._weights)
        self._pick_given = _picker(given)
        self._sizes = spans([arguments[i] for i in given])
        self._written = tuple(written)
        self._shared = tuple(shared)
        self._outputs = None if outputs is None else tuple(outputs)

    def __call__(self, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
        """What eager would return, and arguments written to as eager would.

        None where it is not for these ``arguments``; nothing has happened then.
        """
        # TorchDynamo makes each Python frame dear, so there are few: what is picked or compared is
        # so by C.
        if self._bound:
            weights = self._pick_weights(arguments)
            if not all(map(is_, weights, self._bound)):
                return None
            if list(map(_version, weights)) != self._versions:
                return None
        given = self._pick_given(arguments)
        if self._written and not disjoint([one.data_ptr() for one in given], self._sizes):
            return None
        for tensor in given:
            if tensor.data_ptr() % ALIGNMENT or not tensor.is_contiguous():
                given = readable(given)
                break
        result = self._machine(*given)
        # One output comes as a tensor, several as an array of TVM's.
        results = [result] if hasattr(result, "data_ptr") else list(result)
        for shared in self._shared:
            results[shared] = results[shared].clone()
        for place, written in self._written:
            arguments[place].copy_(results[written])
        if self._outputs is None:
            return tuple(results)
        return tuple([give(arguments, results) for give in self._outputs])

    def accepts(self, arguments: Sequence[Any]) -> bool:
        """Whether the weights are those that were compiled in, unchanged since."""
        weights = self._pick_weights(arguments)
        return all(map(is_, weights, self._bound)) and (
            list(map(_version, weights)) == self._versions
        )

    def changed(self, arguments: Sequence[Any]) -> set[int]:
        """Which of its weights were written to since it was compiled."""
        pairs = zip(self._weights, self._bound, self._versions, strict=True)
        return {i for i, bound, was in pairs if arguments[i] is bound and bound._version != was}


def _picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that picks those elements, in order, as a tuple."""
    if len(positions) < 2:
        return itemgetter(slice(positions[0], positions[0] + 1) if positions else slice(0))
    return itemgetter(*positions)


def readable(tensors: Sequence[Any]) -> list[Any]:
    """``tensors``, those copied that the machine could not read where they are."""
    return [
        tensor.contiguous().clone()
        if tensor.data_ptr() % ALIGNMENT or not tensor.is_contiguous()
        else tensor
        for tensor in tensors
    ]


def results_of(machine: Machine, tensors: Sequence[Any]) -> list[Any]:
    """What ``machine`` computes of ``tensors``."""
    result = machine(*readable(tensors))
    return [result] if hasattr(result, "data_ptr") else list(result)
