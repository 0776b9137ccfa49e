"""Every command of the command line, in the order that ``--help`` lists them."""

from __future__ import annotations

import typer

from autotune.cli import (
    bench,
    check,
    compile,
    db,
    device,
    inspect,
    job,
    lock,
    profile,
    recommend,
    report,
    reproduce,
    run,
    target,
    tune,
    verify,
)

app = typer.Typer(
    help="Tune, compile and run deep-learning models on this CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(inspect.inspect)
app.command()(tune.tune)
app.command()(compile.compile)
app.command()(lock.lock)
app.command()(reproduce.reproduce)
app.command()(run.run)
app.command()(bench.bench)
app.command()(profile.profile)
app.command()(report.report)
app.command()(recommend.recommend)
app.command()(check.check)
app.command()(device.device)
db.app.command()(verify.verify)
app.add_typer(db.app, name="db")
app.add_typer(job.app, name="job")
app.add_typer(target.app, name="target")
app.command()(target.plugins)
