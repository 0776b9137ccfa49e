"""What runs in a process of its own: one model tuned for one target.

Started as ``python -m autotune.jobs.child``. TVM's thread pool has one size for the life of a
process, and targets differ in threads; and what takes TVM down takes one model down. The order
comes as JSON on stdin; lines of JSON on what was stdout tell the progress, and the result.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from types import FrameType
from typing import Any

from autotune.errors import UserError

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Carry out the order, and tell."""
    order = json.load(sys.stdin)
    # Whoever started this waits for it; killed, it waits no more.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order["parent"]:
        return
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever is printed by TVM, or by a plugin, is no answer
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    def tell(kind: str, value: Any) -> None:
        print(json.dumps({kind: value}), file=channel)

    signal.signal(signal.SIGINT, interrupt)
    try:
        tell("started", os.getpid())
        tell("result", _tuned(order["tune"], tell))
    except UserError as error:
        tell("failed", str(error))
    except BaseException:
        if interrupted:  # TVM makes errors of its own of an interruption
            os._exit(1)
        raise


def _tuned(asked: Mapping[str, Any], tell: Any) -> dict[str, Any]:
    from autotune.api import tune
    from autotune.measure.tracker import Device
    from autotune.measure.wire import target_from

    given = dict(asked)
    device = given.pop("device")
    result = tune(
        target=target_from(given.pop("target")),
        device=device and Device(**device),
        status=lambda line: tell("status", line),
        progress=lambda state: tell("progress", asdict(state)),
        **given,
    )
    search = result.search
    return {
        "stopped": search.stopped,
        "message": search.message,
        "trials": search.done,
        "elapsed": search.elapsed,
        "tasks": len(search.tasks),
        "measured": sum(task.seconds is not None for task in search.tasks),
        "seconds": search.latency,
        "default_seconds": search.baseline,
    }


if __name__ == "__main__":
    main()
