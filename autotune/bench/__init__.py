"""How fast an artifact is, next to other engines."""

from autotune.bench.compare import BenchResult, EngineResult, bench

__all__ = ["BenchResult", "EngineResult", "bench"]
