"""The contract of a graph space: what may be chosen for a whole model, and how it is applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from search_spaces.task import Parameters, ParameterValue, Target


Choices = Mapping[str, Mapping[str, Any]]
"""By the name of a graph space, its "version" and the "parameters" that were chosen. JSON-able."""


class GraphSpace(ABC):
    """Rewrites of a model's graph that compute the same by other kernels.

    The model is an IRModule whose Relax function "main" has one dataflow block, with weights as
    constants and images with the channels first (but see ``laid_out``); it has not been fused. What
    is moved to a private function with attribute "Primitive" becomes one kernel, as it is
    (``search_spaces.graph.grouping``). A space is stateless, and
    deterministic: equal modules and choices give equal modules, on every machine. Raise ``version``
    whenever the same choices would give another module.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    order: ClassVar[int] = 0
    """Spaces with a lower one are applied first, and the others see what they made."""
    laid_out: ClassVar[bool] = False
    """Whether it is applied late, to a module whose images have the channels last, and whose norms
    are taken apart: such spaces choose what becomes one kernel."""

    @abstractmethod
    def parameters(self, module: Any, target: Target) -> dict[str, BaseDistribution]:
        """What may be chosen in ``module``, as Optuna distributions by name. Empty: nothing."""

    @abstractmethod
    def default(self, module: Any, target: Target) -> dict[str, ParameterValue]:
        """A good guess without any search, a value for each of ``parameters``."""

    @abstractmethod
    def apply(self, module: Any, target: Target, parameters: Parameters) -> Any:
        """``module`` with what was chosen; its inputs and outputs stay as they are.

        Names in ``parameters`` that are none of ``self.parameters`` are passed over, and what is
        missing is as in the default: choices may be older than the module.
        """

    def known(self, module: Any, target: Target) -> Collection[str]:
        """The names in ``parameters`` that ``apply`` does not pass over: those of the default.

        More of them where something may be chosen that is not offered without being asked for.
        """
        return self.default(module, target).keys()

    def chain(self, module: Any, target: Target) -> list[str]:
        """Those of ``parameters`` that are places along a chain, in its order; none by default.

        Only neighbours act on each other: a search then finds the best values of all of them from
        changes of one and of two.
        """
        return []
