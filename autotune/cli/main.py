"""The command line: parses, calls one public function, prints. ``main`` is its entry point.

Nothing is imported here that takes time: ``--help`` must be quick, and an interruption must find
``main`` at work already.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from autotune.cli.console import Interrupted, say
from autotune.cli.interrupt import INTERRUPTED, Interruption, prompt_exit
from autotune.errors import UserError

USER_FAULT = 2
KEPT = "Interrupted: whatever was measured is kept in the database, and tuning again continues."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check failed, 2 the input is at fault,
    130 interrupted. Our own bugs end with a traceback.
    """
    interruption = Interruption()
    try:
        with prompt_exit(KEPT, interruption):
            from autotune.cli.app import app
            from autotune.lean import without_torch

            without_torch()
            app(args=None if arguments is None else list(arguments), prog_name="autotune")
    except Interrupted as error:
        _leave(str(error))
    except KeyboardInterrupt:
        _leave(KEPT)
    except SystemExit as end:
        if end.code == INTERRUPTED or (end.code and interruption.came):
            _leave(KEPT)
        raise
    except Exception as error:
        # TVM turns an interruption of what it calls back into errors of its own.
        if interruption.came:
            _leave(KEPT)
        if isinstance(error, UserError):
            say(f"autotune: {error}")
            sys.exit(USER_FAULT)
        raise
    finally:
        # All is said and done: what still runs at exit may be broken off without a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave(message: str) -> NoReturn:
    """End at once after an interruption: taking TVM and its threads down can take seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say(message)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
