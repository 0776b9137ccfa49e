"""Which runner measures: a name with its settings, or whatever makes one for a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.choice import Choice, Factories, factory
from autotune.errors import InputError
from autotune.measure.base import Runner

if TYPE_CHECKING:
    from autotune.measure.timing import TimingPlan
    from autotune.measure.tracker import Device
    from search_spaces.task import Target

RunnerFactory = Callable[..., Runner]
"""Makes a runner, by keyword, of those of the things of ``RUNNERS`` that it names."""

_GIVEN = ("target", "plan", "cores", "status", "tracker", "wait_seconds", "compiler")
RUNNERS: Factories[Runner] = Factories(
    "runner", "autotune.runners", factory(lambda: Runner, *_GIVEN), _GIVEN
)
"""A subclass of ``Runner``, or a function that returns one: of the ``target``, the ``plan`` of how
kernels are timed (``autotune.measure.timing.TimingPlan``), the number of ``cores`` that may be used
(None: as many as the target has threads), ``status`` to tell what takes long (called with a line,
or None), and for a device that is reached over the network its ``tracker``, for how many
``wait_seconds`` it is waited for and the ``compiler`` that links for it."""

LOCAL, OVER_NETWORK = "local", "rpc"


def runner_choice(chosen: str | RunnerFactory | None, device: Device | None) -> Choice[Runner]:
    """The runner ``chosen``; for None it is this machine, or the ``device``.

    Raises ``InputError``, also for one that needs a device where there is none, or the reverse.
    """
    if chosen is None:
        chosen = LOCAL if device is None else OVER_NETWORK
    found = RUNNERS.choose(chosen) if isinstance(chosen, str) else Choice("runner", "own", chosen)
    if device is None and found.takes("tracker"):
        raise InputError(
            f"the runner {found.name} measures on a device: say with --rpc HOST:PORT where the "
            "tracker is that knows it"
        )
    if device is not None and not found.takes("tracker"):
        raise InputError(
            f"the runner {found.name} reaches no device over the network: leave --rpc or --runner "
            "out"
        )
    return found


def make_runner(
    chosen: Choice[Runner],
    target: Target,
    plan: TimingPlan,
    *,
    cores: int | None = None,
    device: Device | None = None,
    status: Callable[[str], None] | None = None,
) -> Runner:
    """Start the runner. Raises ``InputError`` for ``cores`` that it does not heed, and whatever
    else it says of its settings and of ``target``."""
    if cores is not None and not chosen.takes("cores"):
        raise InputError(f"the runner {chosen.name} does not heed --cores: leave it out")
    given: dict[str, Any] = {"target": target, "plan": plan, "cores": cores, "status": status}
    if device is not None:
        given |= {
            "tracker": device.tracker,
            "wait_seconds": device.wait_seconds,
            "compiler": device.compiler,
        }
    return chosen.make(**given)
