"""What a graph promises of its inputs and outputs beyond their values: who shares memory with whom.

Eager PyTorch hands out views, and callers may write to them. So each output of a compiled graph is
given back as eager gave it: a new tensor of the same strides, an input, or a view of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autotune.errors import ModelError

Giver = Callable[[Sequence[Any], Sequence[Any]], Any]
"""From the arguments of a call and the tensors that were computed to one output."""


def givers(
    given: Sequence[Any], returned: Sequence[Any], computed: Sequence[int | None]
) -> list[Giver] | None:
    """How each of ``returned``, which eager made of ``given``, is made of what is computed.

    ``computed`` says which of the computed tensors it is. None where what is computed is, in order,
    what is returned. Raises ``ModelError`` where outputs share
    memory in a way that copies would change.
    """
    import torch

    found: list[Giver] = []
    plain = list(computed) == list(range(len(returned)))
    new: list[Any] = []
    for value, place in zip(returned, computed, strict=True):
        if not isinstance(value, torch.Tensor):
            found.append(_constant(value))
            continue
        base = next((i for i, one in enumerate(given) if _same_memory(one, value)), None)
        if base is not None:
            found.append(_of_input(base, given[base], value))
            plain = False
            continue
        twin = next((i for i, one in enumerate(returned[: len(found)]) if one is value), None)
        if twin is not None:
            found.append(found[twin])
            plain = False
            continue
        if any(_same_memory(one, value) and _overlap(one, value) for one in new):
            raise ModelError("outputs of it are views of each other")
        new.append(value)
        assert place is not None
        found.append(_of_result(place, value))
        plain = plain and value.is_contiguous()
    return None if plain else found


def spans(tensors: Sequence[Any]) -> list[int]:
    """Bytes from the first to the last element of each tensor."""
    return [_span(tensor) for tensor in tensors]


def disjoint(pointers: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether no two of the pieces of memory overlap."""
    end = 0
    for start, size in sorted(zip(pointers, sizes, strict=True)):
        if start < end and size:
            return False
        end = max(end, start + size)
    return True


def _constant(value: Any) -> Giver:
    return lambda arguments, results: value


def _of_input(base: int, was: Any, value: Any) -> Giver:
    if value is was:
        return lambda arguments, results: arguments[base]
    size, stride = tuple(value.shape), value.stride()
    offset = value.storage_offset() - was.storage_offset()
    if value.dtype != was.dtype or value.is_conj() or value.is_neg():
        raise ModelError("an output of it is another look at the bytes of an input")

    def give(arguments: Sequence[Any], results: Sequence[Any]) -> Any:
        argument = arguments[base]
        return argument.as_strided(size, stride, argument.storage_offset() + offset)

    return give


def _of_result(place: int, value: Any) -> Giver:
    import torch

    size, stride = tuple(value.shape), value.stride()
    if value.is_contiguous():
        return lambda arguments, results: results[place]

    def give(arguments: Sequence[Any], results: Sequence[Any]) -> Any:
        result = results[place]
        return torch.empty_strided(size, stride, dtype=result.dtype).copy_(result)

    return give


def _same_memory(one: Any, other: Any) -> bool:
    import torch

    if not isinstance(one, torch.Tensor) or one.layout is not torch.strided:
        return False
    storage = one.untyped_storage()
    return bool(storage.nbytes() > 0 and storage.data_ptr() == other.untyped_storage().data_ptr())


def _overlap(one: Any, other: Any) -> bool:
    return not disjoint([one.data_ptr(), other.data_ptr()], spans([one, other]))


def _span(tensor: Any) -> int:
    if not tensor.numel():
        return 0
    last = sum((e - 1) * s for e, s in zip(tensor.shape, tensor.stride(), strict=True))
    return int(last + 1) * int(tensor.element_size())
