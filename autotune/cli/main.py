"""The command line: parses, calls one public function, prints. ``main`` is its entry point.

Nothing heavy is imported here: ``--help`` must be quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from autotune.cli import bench, compile, db, run, target, tune
from autotune.cli.console import Interrupted, say
from autotune.cli.interrupt import INTERRUPTED, prompt_exit
from autotune.errors import UserError

USER_FAULT = 2
KEPT = "Interrupted: whatever was measured is kept in the database, and tuning again continues."

app = typer.Typer(
    help="Tune, compile and run deep-learning models on this CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(tune.tune)
app.command()(compile.compile)
app.command()(run.run)
app.command()(bench.bench)
app.add_typer(db.app, name="db")
app.add_typer(target.app, name="target")
app.command()(target.plugins)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check failed, 2 the input is at fault,
    130 interrupted. Our own bugs end with a traceback.
    """
    try:
        with prompt_exit(KEPT):
            app(args=None if arguments is None else list(arguments), prog_name="autotune")
    except UserError as error:
        say(f"autotune: {error}")
        sys.exit(USER_FAULT)
    except Interrupted as error:
        _leave(str(error))
    except KeyboardInterrupt:
        _leave(KEPT)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _leave(KEPT)
        raise


def _leave(message: str) -> NoReturn:
    """End at once after an interruption: taking TVM and its threads down can take seconds."""
    say(message)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
