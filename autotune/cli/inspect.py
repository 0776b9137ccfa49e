"""`autotune inspect`: what a model is, before anything is tuned."""

from __future__ import annotations

from dataclasses import asdict

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json, table
from autotune.cli.options import JsonOption, ModelArgument, ShapeOption


def inspect(
    model: ModelArgument,
    shape: ShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what MODEL takes, holds and computes. Exit code 1 if it cannot be imported."""
    from autotune.inspection import REFUSED
    from autotune.inspection import inspect as run

    found = run(model, parsing.shapes(shape or ()))
    if as_json:
        print_json({**asdict(found), "unsupported": list(found.unsupported)})
    else:
        rows = [
            (kind, value.name, value.dtype, _shape(value.shape))
            for kind, values in (("input", found.inputs), ("output", found.outputs))
            for value in values
        ]
        table(f"{found.name}, opset {found.opset}", ("", "name", "type", "shape"), rows)
        table(
            "Operators",
            ("operator", "count", "import stage"),
            [
                (f"{entry.domain}.{entry.name}" if entry.domain else entry.name,
                 str(entry.count), entry.stage)
                for entry in found.operators
            ],
        )  # fmt: skip
        print(f"{found.parameters:,} parameters, {found.parameter_bytes / 1e6:.3g} MB")
        if found.flops is not None:
            print(f"{found.flops / 1e9:.4g} GFLOP in products for one inference")
        if found.open:
            print(f"open dimensions: {', '.join(found.open)}")
        if found.unsupported:
            print(f"{REFUSED}: {', '.join(found.unsupported)}")
        if found.stage:
            notes = f" ({'; '.join(found.notes)})" if found.notes else ""
            print(f"imports: {found.stage}{notes}; not compared with the original yet")
        else:
            print(f"does not import: {found.reason}")
    if found.reason and not found.open:
        raise typer.Exit(1)


def _shape(shape: tuple[int | str, ...] | None) -> str:
    if shape is None:
        return "of any rank"
    return "x".join(map(str, shape)) if shape else "scalar"
