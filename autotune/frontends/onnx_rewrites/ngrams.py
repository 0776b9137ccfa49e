"""TfIdfVectorizer of integers: how often each sequence of the pool occurs."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_rewrites.base import Rewrite, Site


def tf_idf(site: Site) -> Sequence[str] | None:
    import numpy as np

    pool = site.attribute("pool_int64s")
    if not pool:
        return None
    x, shape = site.input(0), site.shape(site.input(0))
    batch, length = (1, shape[0]) if len(shape) == 1 else shape
    begins, columns = site.attribute("ngram_counts"), site.attribute("ngram_indexes")
    shortest, longest = (site.attribute(f"{name}_gram_length") for name in ("min", "max"))
    most_skipped, wide = site.attribute("max_skip_count"), max(columns) + 1
    mode, weights = site.attribute("mode"), site.attribute("weights")
    value = site.reshape(site.cast(x, np.int64), (batch, length))
    total = site.name(np.zeros((batch, wide), np.float32))
    first = 0
    for size in range(1, len(begins) + 1):
        end = begins[size] if size < len(begins) else len(pool)
        grams = np.asarray(pool[begins[size - 1] : end], np.int64).reshape(-1, size)
        targets = columns[first : first + len(grams)]
        first += len(grams)
        if not len(grams) or not shortest <= size <= longest:
            continue
        windows = [
            [begin + i * step for i in range(size)]
            # A single item has nothing to skip.
            for step in range(1, 2 if size == 1 else most_skipped + 2)
            for begin in range(length - (size - 1) * step)
        ]
        if not windows:
            continue
        shown = site.reshape(site.take(value, windows, 1), (batch, len(windows), 1, size))
        equal = site.cast(site.emit("Equal", shown, grams[None, None]), np.float32)
        hits = site.emit("MatMul", equal, np.ones((size, 1), np.float32))
        whole = site.emit("GreaterOrEqual", hits, np.float32(size))
        whole = site.reshape(site.cast(whole, np.float32), (batch, len(windows), len(grams)))
        found = site.emit("MatMul", np.ones((batch, 1, len(windows)), np.float32), whole)
        places = np.zeros((len(grams), wide), np.float32)
        places[np.arange(len(grams)), targets] = 1
        found = site.emit("MatMul", site.reshape(found, (batch, len(grams))), places)
        total = site.emit("Add", total, found)
    if mode == "IDF":
        total = site.cast(site.emit("Greater", total, np.float32(0)), np.float32)
    if mode != "TF" and weights:
        row = np.zeros(wide, np.float32)
        row[columns] = weights
        total = site.emit("Mul", total, row)
    return [site.reshape(total, (wide,) if len(shape) == 1 else (batch, wide))]


REWRITE = Rewrite(("TfIdfVectorizer",), tf_idf)
