"""Linear models, and what all classifiers of ai.onnx.ml make of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import ML, Refused, Rewrite, Site, Unknown
from autotune.frontends.onnx_rewrites.ml_scaling import floats


def labels_of(site: Site, *names: str) -> Any:
    """The labels of the classes, as an array; raises ``Refused`` where they are words."""
    import numpy as np

    for name in names:
        if (labels := site.attribute(name)) is not None and len(labels):
            if isinstance(labels[0], str):
                raise Refused(
                    f"a {site.operator} whose labels are words: train it with numbers as labels"
                )
            return np.asarray(labels, np.int64)
    raise Unknown(f"a {site.operator} has no labels")


def named(site: Site, scores: str, labels: Any) -> str:
    """The label of the class with the highest score, the first of equals."""
    best = site.emit("ArgMax", scores, axis=1, keepdims=0)
    return site.emit("Gather", labels, best, axis=0)


def transformed(site: Site, scores: str) -> str:
    """What ``post_transform`` makes of ``scores``, a column a class."""
    how = site.attribute("post_transform", "NONE")
    if how == "NONE":
        return scores
    if how == "LOGISTIC":
        return site.emit("Sigmoid", scores)
    if how == "SOFTMAX":
        return site.emit("Softmax", scores, axis=1)
    raise Unknown(f"a {site.operator} ends in {how}")


def two_columns(site: Site, score: str, positive: bool) -> str:
    """Both classes' columns from the one score: of a probability, or of a distance."""
    import numpy as np

    if positive:
        return site.emit("Concat", site.emit("Sub", np.float32(1), score), score, axis=1)
    return transformed(site, site.emit("Concat", site.emit("Neg", score), score, axis=1))


def rows_of(site: Site) -> str:
    """The input in float32 as a table of rows."""
    shape, value = site.shape(site.input(0)), floats(site)
    return site.reshape(value, (1, -1)) if len(shape) == 1 else value


def _scores(site: Site, count: int) -> str:
    import numpy as np

    weights = np.asarray(site.attribute("coefficients"), np.float32).reshape(count, -1).T
    scores = site.emit("MatMul", rows_of(site), np.ascontiguousarray(weights))
    if offsets := site.attribute("intercepts"):
        scores = site.emit("Add", scores, np.asarray(offsets, np.float32))
    return scores


def linear_regressor(site: Site) -> Sequence[str]:
    return [transformed(site, _scores(site, site.attribute("targets", 1)))]


def linear_classifier(site: Site) -> Sequence[str]:
    labels = labels_of(site, "classlabels_strings", "classlabels_ints")
    shape = site.shape(site.input(0))
    count = len(site.attribute("coefficients")) // shape[-1]
    if count < 2:
        raise Unknown("a LinearClassifier has one score for two classes")
    scores = _scores(site, count)
    return [named(site, scores, labels), transformed(site, scores)]


REWRITES = (
    Rewrite(("LinearRegressor",), linear_regressor, domain=ML),
    Rewrite(("LinearClassifier",), linear_classifier, domain=ML),
)
