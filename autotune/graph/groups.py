"""Grouped convolutions in groups that fill vectors.

The outputs of one group are contiguous in NHWC, and all of them read the same inputs. Where a
group has too few of them for a vector, several groups become one whose weights are zero between
them: more multiplications, in as many or fewer instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from search_spaces.cpu.structure import LEAST_VECTOR, even_part
from search_spaces.graph.expressions import array
from search_spaces.task import Target


def merged_groups(weight: Any, groups: int, target: Target) -> tuple[Any, int]:
    """``weight`` (HWIO, constant) and ``groups`` with as many groups merged as vectors want."""
    data = array(weight)
    height, width, inputs, columns = data.shape
    outputs = columns // groups
    several = merging(groups, inputs, outputs, target)
    if several == 1:
        return weight, groups
    left = groups // several
    filled = np.zeros((height, width, several, inputs, left, several, outputs), data.dtype)
    split = data.reshape(height, width, inputs, left, several, outputs)
    for member in range(several):
        filled[:, :, member, :, :, member] = split[:, :, :, :, member]
    return relax.const(filled.reshape(height, width, several * inputs, columns)), left


def merging(groups: int, inputs: int, outputs: int, target: Target) -> int:
    """How many groups to merge into one: the fewest vector multiplications, then the fewest zeros.

    ``inputs`` and ``outputs`` are the channels of one group.
    """
    costs = []
    for several in (s for s in range(1, groups + 1) if groups % s == 0):
        columns = outputs * several
        lanes = even_part(columns, target.lanes())
        if several == groups:  # one group: filled up to whole vectors like any convolution
            lanes = target.vector_of(columns)
        elif lanes < LEAST_VECTOR:
            continue
        costs.append((groups * inputs * -(-columns // lanes), several))
    return min(costs)[1]
