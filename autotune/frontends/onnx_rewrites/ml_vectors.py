"""Support vector machines: the matrix of kernels times the coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import ML, Rewrite, Site, Unknown
from autotune.frontends.onnx_rewrites.ml_linear import labels_of, named, rows_of, transformed


def kernels(site: Site, vectors: Any) -> str:
    """The kernel of each row with each of ``vectors``."""
    import numpy as np

    x = rows_of(site)
    gamma, offset, degree = [*(site.attribute("kernel_params") or []), 0.0, 0.0, 0.0][:3]
    kind = site.attribute("kernel_type", "LINEAR")
    count, features = vectors.shape
    if kind == "RBF":
        # By differences: the short form, with a product, cancels where rows are near vectors.
        wide = site.emit("Sub", site.reshape(x, (-1, 1, features)), vectors[None])
        ones = np.ones((features, 1), np.float32)
        square = site.emit("MatMul", site.emit("Mul", wide, wide), ones)
        square = site.reshape(square, (-1, count))
        return site.emit("Exp", site.emit("Mul", square, np.float32(-gamma)))
    product = site.emit("MatMul", x, np.ascontiguousarray(vectors.T))
    if kind == "LINEAR":
        return product
    product = site.emit("Mul", product, np.float32(gamma))
    product = site.emit("Add", product, np.float32(offset))
    if kind == "SIGMOID":
        return site.emit("Tanh", product)
    if kind != "POLY" or degree != int(degree) or not 1 <= degree <= 16:
        raise Unknown(f"a {site.operator} has a kernel {kind} of degree {degree}")
    power = product
    for _ in range(int(degree) - 1):
        power = site.emit("Mul", power, product)
    return power


def _vectors(site: Site, count: int) -> Any:
    import numpy as np

    return np.asarray(site.attribute("support_vectors"), np.float32).reshape(count, -1)


def svm_regressor(site: Site) -> Sequence[str]:
    import numpy as np

    count = site.attribute("n_supports", 0)
    coefficients = np.asarray(site.attribute("coefficients"), np.float32).reshape(-1, 1)
    if count:
        sums = site.emit("MatMul", kernels(site, _vectors(site, count)), coefficients)
    else:
        sums = kernels(site, coefficients.T)
    value = site.emit("Add", sums, np.asarray(site.attribute("rho"), np.float32)[:1])
    if site.attribute("one_class", 0):
        above = site.emit("Greater", value, np.float32(0))
        value = site.emit("Where", above, np.float32(1), np.float32(-1))
    return [transformed(site, value)]


def svm_classifier(site: Site) -> Sequence[str]:
    """Every pair of classes has a vote; the scores of the pairs are a product with constants."""
    import numpy as np

    labels = labels_of(site, "classlabels_strings", "classlabels_ints")
    sizes = site.attribute("vectors_per_class") or []
    if site.attribute("prob_a"):
        raise Unknown("an SVMClassifier iterates until its probabilities agree: export it without")
    if len(sizes) < 2 or site.attribute("post_transform", "NONE") != "NONE":
        raise Unknown("an SVMClassifier has no vectors of its classes, or transforms its scores")
    total, classes = sum(sizes), len(sizes)
    starts = np.cumsum([0, *sizes])
    given = np.asarray(site.attribute("coefficients"), np.float32).reshape(classes - 1, total)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    table = np.zeros((total, len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        own, other = (slice(starts[k], starts[k + 1]) for k in (i, j))
        table[own, column] = given[j - 1, own]
        table[other, column] = given[i, other]
    scores = site.emit("MatMul", kernels(site, _vectors(site, total)), table)
    scores = site.emit("Add", scores, np.asarray(site.attribute("rho"), np.float32))
    won = site.cast(site.emit("Greater", scores, np.float32(0)), np.float32)
    # Votes of class k: those won as the first of a pair, and those lost by the first.
    first = np.array([[i == k for k in range(classes)] for i, _ in pairs], np.float32)
    second = np.array([[j == k for k in range(classes)] for _, j in pairs], np.float32)
    votes = site.emit("MatMul", won, first - second)
    votes = site.emit("Add", votes, second.sum(0))
    label = named(site, votes, labels)
    if len(pairs) == 1:
        scores = site.emit("Concat", site.emit("Neg", scores), scores, axis=1)
    return [label, scores]


REWRITES = (
    Rewrite(("SVMRegressor",), svm_regressor, domain=ML),
    Rewrite(("SVMClassifier",), svm_classifier, domain=ML),
)
