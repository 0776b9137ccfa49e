"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An .onnx file, or a .pt2 file of torch.export.")
]
ArtifactArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The artifact directory.")]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=1,3,224,224",
        help="Shape of an input whose dimensions the model leaves open; once for each.",
    ),
]
SizesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=1,3,224,224",
        help="Shape of an input whose dimensions the model leaves open; once for each. With "
        "NAME=1/8,3,224,224 the artifact holds a program for each size.",
    ),
]
TargetOption = Annotated[
    str, typer.Option("--target", help="native, a name (see target list), or a JSON file.")
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key", metavar="NAME", help="The device that the target is, by its key at a tracker."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="Threads of one inference.", show_default="the target's"),
]
DatabaseOption = Annotated[Path, typer.Option("--db", help="The tuning database.")]
DATABASE = Path("tuning.db")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress: only the result, warnings and errors."),
]
