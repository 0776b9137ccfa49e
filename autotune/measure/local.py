"""Measuring on this machine, in worker processes that may die."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict

from autotune.errors import TargetError
from autotune.measure.base import Limits
from autotune.measure.process import LimitPassed, WorkerDied
from autotune.measure.timing import TimingPlan
from autotune.measure.workers import WorkerRunner
from search_spaces.task import Target


class LocalRunner(WorkerRunner):
    """Measures candidates on this machine, one at a time, so that each has its cores alone.

    A worker builds and runs candidate after candidate, see ``WorkerRunner``.
    """

    def __init__(
        self,
        target: Target,
        limits: Limits | None = None,
        *,
        plugins: Sequence[str] = (),
        plan: TimingPlan | None = None,
        reference_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        """Start the processes in the background.

        ``plugins`` are modules to import in the workers, that register search spaces by
        ``search_spaces.registry.register``. ``reference_seconds`` limits the plain computation of
        each task that candidates are compared with. Raises ``TargetError`` where this machine
        cannot run code for ``target``.
        """
        self._probed = False
        _check(target)
        super().__init__(
            target,
            limits,
            plugins=plugins,
            plan=plan,
            reference_seconds=reference_seconds,
            seed=seed,
            threads=target.threads,
        )

    def _probe(self) -> None:
        """Run a first kernel here, once."""
        if self._probed:
            return
        worker = self._fork()
        try:
            worker.send({"do": "probe", "target": asdict(self.target)})
            answer = worker.receive(time.monotonic() + 60.0)["done"]
        except (WorkerDied, LimitPassed) as error:
            number, words = self._discard()
            raise TargetError(
                f"this machine ({platform.machine()}) cannot run code for target "
                f"{self.target.cpu or self.target.triple!r} (signal {number} {words}): "
                "name the target that it is, or use --target native"
            ) from error
        if not answer.get("right"):
            raise TargetError(
                f"code for target {self.target.cpu or self.target.triple!r} does not work here "
                f"({answer.get('failed', 'wrong result')}): use --target native"
            )
        self._probed = True


def _check(target: Target) -> None:
    """Refuse what cannot be this machine, without starting anything."""
    if target.kind != "llvm":
        raise TargetError(f"only llvm targets can be measured locally, not {target.kind!r}")
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    wanted = target.triple.split("-")[0].lower()
    here = platform.machine().lower()
    if wanted and names.get(wanted, wanted) != names.get(here, here):
        raise TargetError(
            f"a target for {wanted} cannot be measured on this {here} machine: "
            "compile for it with --target, or measure on such a machine"
        )
