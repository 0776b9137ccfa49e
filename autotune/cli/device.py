"""`autotune device`: offer this machine to `autotune tune --rpc` on another."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from autotune.cli.console import say
from autotune.cli.options import ThreadsOption


def device(
    tracker: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The RPC tracker to register with.")
    ],
    key: Annotated[
        str, typer.Option(metavar="NAME", help="What this kind of device is called there.")
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="The port; 0 is any free one.", min=0)] = 0,
    address: Annotated[
        str | None,
        typer.Option(help="Under which others reach this machine.", show_default="the tracker's"),
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Serve candidates to be measured here, until interrupted. Anybody who reaches the port can run
    any code: for private networks only.
    """
    from autotune.errors import InputError
    from autotune.measure.device import serve
    from autotune.measure.tracker import Tracker
    from autotune.target import available_cores

    where = Tracker.parse(tracker)
    if threads is not None and threads < 1:
        raise InputError(f"the number of threads must be 1 or more, not {threads}")
    count = threads or available_cores()

    def ready(number: int) -> None:
        say(f"offering {key!r} on port {number} with {count} threads to the tracker {where}")

    try:
        with contextlib.suppress(KeyboardInterrupt):
            serve(
                (where.host, where.port),
                key,
                host=host,
                port=port,
                address=address,
                threads=count,
                ready=ready,
            )
    except OSError as error:
        raise InputError(
            f"port {port} of {host} cannot be used: {error.strerror or error}"
        ) from error
    except RuntimeError as error:  # TVM's, after a minute without the tracker
        raise InputError(f"the tracker {where} cannot be used: {error}") from error
