"""What ``torch.compile(model, backend="autotune")`` costs and gives.

``python -m benchmarks.torch_backend``.

A module of one small kernel, and one of many layers, show what a repeated call costs around the
compiled program itself: what TorchDynamo takes to check its guards (measured with a backend that
does nothing), and what ours adds. Then a decoder of GPT-2's size, its keys and values in buffers
that it writes to, reads a prompt and goes on token by token, beside eager PyTorch, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of

AIM = 30e-6
"""Seconds that a repeated call may take besides the compiled program."""


def per_call(ways: dict[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, float]:
    """Seconds of a call, each way in turn: of the least disturbed turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            taken[name].append((time.perf_counter() - begun) / calls)
    return {name: min(values) for name, values in taken.items()}


def around(module: Any, example: Any, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a call of ``module``: the bare program, the graph, all of it, dynamo alone."""
    import torch

    from autotune.dynamo import graph

    graphs: list[graph.Graph] = []
    made = graph.Graph.__init__

    def noted(self: graph.Graph, *given: Any) -> None:
        made(self, *given)
        graphs.append(self)

    with torch.no_grad():
        graph.Graph.__init__ = noted  # type: ignore[method-assign]
        try:
            ours = torch.compile(module, backend="autotune", options={"threads": options.threads})
            ours(example)
        finally:
            graph.Graph.__init__ = made  # type: ignore[method-assign]
        nothing = torch.compile(module, backend="eager")
        nothing(example)
        ours(example)
        (found,) = graphs
        ((specialised,),) = found._made.values()
        weights = iter(specialised._bound)
        count = len(specialised._weights) + 1
        arguments = tuple(
            next(weights) if i in specialised._weights else example for i in range(count)
        )
        program = specialised._machine
        ways = {
            "bare": lambda: program(example),
            "graph": lambda: found(*arguments),
            "compiled": lambda: ours(example),
            "dynamo": lambda: nothing(example),
            "eager": lambda: module(example),
        }
        for call in ways.values():
            call()
        return per_call(ways, options.rounds, options.calls)


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """What is around a call, for one kernel and for many weights."""
    import torch
    from torch import nn

    layers = [part for _ in range(32) for part in (nn.Linear(32, 32), nn.ReLU())]
    modules: dict[str, tuple[Any, Any]] = {
        "a function of one kernel": (lambda x: torch.relu(x), torch.randn(1, 64)),
        "a module of one kernel": (nn.ReLU(), torch.randn(1, 64)),
        "64 weights": (nn.Sequential(*layers).eval(), torch.randn(1, 32)),
    }
    found = {}
    for name, (module, example) in modules.items():
        torch._dynamo.reset()
        found[name] = times = around(module, example, options)
        times["ours"] = times["graph"] - times["bare"]
        times["all"] = times["compiled"] - times["bare"]
    return found


def tokens(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of the decoder: of the prompt, and one by one."""
    import copy

    import torch

    from benchmarks.torch_architectures import Decoder

    torch.manual_seed(0)
    torch._dynamo.reset()
    eager = Decoder(
        options.width, options.width // 64, options.layers, options.length, options.vocabulary
    ).eval()
    mine = copy.deepcopy(eager)
    ours = torch.compile(
        mine, backend="autotune", options={"threads": options.threads, "database": options.db}
    )
    prompt = torch.randint(0, options.vocabulary, (1, options.prompt))
    first = torch.arange(options.prompt)

    def read(decoder: Any) -> tuple[float, Any]:
        begun = time.perf_counter()
        logits = decoder(prompt, first)
        return time.perf_counter() - begun, logits

    def go_on(decoder: Any, logits: Any, count: int) -> tuple[float, Any, list[int]]:
        said = []
        begun = time.perf_counter()
        for place in range(options.prompt, options.prompt + count):
            ids = logits.argmax(-1, keepdim=True)
            said.append(int(ids))
            logits = decoder(ids, torch.tensor([place]))
        return time.perf_counter() - begun, logits, said

    taken: dict[str, list[float]] = {
        f"{what} {name}": [] for what in ("prefill", "decode") for name in ("ours", "eager")
    }
    with torch.no_grad():
        begun = time.perf_counter()
        go_on(ours, read(ours)[1], 2)
        compiling = time.perf_counter() - begun
        worst, same = 0.0, True
        for _ in range(options.turns):
            ends, texts = {}, {}
            for name, decoder in (("ours", ours), ("eager", eager)):
                read(decoder)  # the threads of the one before rest by then
                seconds, logits = read(decoder)
                taken[f"prefill {name}"].append(seconds / options.prompt)
                seconds, ends[name], texts[name] = go_on(decoder, logits, options.tokens)
                taken[f"decode {name}"].append(seconds / options.tokens)
            same = same and texts["ours"] == texts["eager"]
            apart = (ends["ours"] - ends["eager"]).abs().max() / ends["eager"].abs().max()
            worst = max(worst, float(apart))
    rates = {name: 1 / statistics.median(values) for name, values in taken.items()}
    return {
        "weights": sum(tensor.numel() for tensor in eager.parameters()),
        "compile_seconds": compiling,
        "tokens_per_second": rates,
        "same_text": same,
        "largest_error": worst,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.torch_backend", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--rounds", type=int, default=30, help="turns of calls (default: %(default)s)")
    add("--calls", type=int, default=200, help="calls in a turn (default: %(default)s)")
    add("--turns", type=int, default=3, help="turns of the decoder (default: %(default)s)")
    add("--tokens", type=int, default=32, help="decoded in a turn (default: %(default)s)")
    add("--prompt", type=int, default=64, help="tokens of the prompt (default: %(default)s)")
    add("--length", type=int, default=256, help="of the cache (default: %(default)s)")
    add("--width", type=int, default=768, help="of the decoder (default: %(default)s)")
    add("--layers", type=int, default=12, help="of the decoder (default: %(default)s)")
    add("--vocabulary", type=int, default=50257, help="of the decoder (default: %(default)s)")
    add("--threads", type=int, default=2, help="of ours and torch's (default: %(default)s)")
    add("--db", type=Path, default=None, help="a database with schedules (default: none)")
    add("--json", type=Path, default=Path("build/torch_backend.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    numbers = ("rounds", "calls", "turns", "tokens", "prompt", "layers", "threads")
    for name in numbers:
        if getattr(options, name) < 1:
            raise InputError(f"--{name} must be 1 or more")
    if options.prompt + options.tokens > options.length or options.width % 64:
        raise InputError("--prompt and --tokens must fit --length, and --width be a multiple of 64")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        import torch

        import autotune.torch_backend  # noqa: F401

        torch.set_num_threads(options.threads)
        with Others() as others:
            calls, text = overhead(options), tokens(options)
    except UserError as error:
        print(f"benchmarks.torch_backend: {error}", file=sys.stderr)
        return 2
    for name, one in calls.items():
        print(
            f"{name}: a call of {one['bare'] * 1e6:.1f} us costs {one['all'] * 1e6:.1f} us more, "
            f"of them ours {one['ours'] * 1e6:.1f}; dynamo and eager {one['dynamo'] * 1e6:.1f} us, "
            f"eager {one['eager'] * 1e6:.1f} us"
        )
    for name, rate in text["tokens_per_second"].items():
        print(f"{name}: {rate:.1f} tokens a second")
    print(
        f"{text['weights'] / 1e6:.0f} M weights, compiled in {text['compile_seconds']:.0f} s, "
        f"largest error {text['largest_error']:.1e}, "
        f"{'the same' if text['same_text'] else 'another'} text as eager; "
        f"others kept {others.cores or 0:.1f} cores busy"
    )
    claims = {
        "at most 30 us around a call of one kernel": calls["a function of one kernel"]["all"]
        <= AIM,
        "at most 30 us of them ours": all(one["ours"] <= AIM for one in calls.values()),
        "the same text as eager": text["same_text"],
    }
    content = {"benchmark": "torch_backend", **describe(options.threads)}
    content |= {"settings": settings_of(options, "json"), "others_busy": others.cores}
    write_json(options.json, {**content, "calls": calls, "decoder": text, "claims": claims})
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
