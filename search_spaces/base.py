"""The contract of a search space: what may be chosen for a task, and how it is applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from search_spaces.task import Parameters, ParameterValue, Target, Task


class InvalidParameters(ValueError):
    """These parameters do not make a schedule of this task; the text says which and why."""


class SearchSpace(ABC):
    """What may be chosen for a task.

    A space is stateless: every method is a function of its arguments, so that a candidate made in
    one process can be applied in another. Raise ``version`` whenever the same parameters would
    give another schedule.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    priority: ClassVar[int] = 0
    """Among several spaces that match, the default of the one with the highest priority is used."""
    compiles: ClassVar[bool] = False
    """Whether parameters and features of a task take a compiler: then nobody asks for those of
    thousands of tasks."""

    @abstractmethod
    def matches(self, task: Task, target: Target) -> bool:
        """Whether this space can schedule ``task``. Called once for each task; must be cheap."""

    @abstractmethod
    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        """What may be chosen, as Optuna distributions by parameter name.

        Called before each study. An empty dict means that there is one schedule only.
        """

    @abstractmethod
    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        """A good guess without any search: the first trial, and the build without a database."""

    def rewrite(self, module: Any, task: Task, target: Target, parameters: Parameters) -> Any:
        """The IRModule that ``apply`` schedules: ``module``, the task's function "main", as it is.

        Override it where another algorithm computes the same: return a module whose "main" takes
        the same arguments. Deterministic, called before ``apply`` and whenever a stored trace is
        replayed; so records of such a space need it installed. Raises ``InvalidParameters``.
        """
        return module

    @abstractmethod
    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        """Schedule function "main" of ``schedule`` (a ``tvm.s_tir.Schedule``) in place.

        It is the task's function, or what ``rewrite`` made of it.

        Called in a worker process, where it may even crash. Deterministic: equal arguments give an
        equal trace. Raises ``InvalidParameters`` for parameters that make no schedule.
        """

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        """Numbers for the cost model, from the decisions alone: no compiler is touched here.

        Called thousands of times for each measured candidate. Raises ``InvalidParameters`` where
        ``apply`` would refuse, which is how a proposal is discarded without being measured.
        """
        return {
            name: float(value) for name, value in parameters.items() if not isinstance(value, str)
        }
