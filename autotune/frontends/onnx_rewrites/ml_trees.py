"""Ensembles of trees by walking all of them at once, a level at a time.

Every row has one place in each tree; a level looks the places' features and thresholds up, compares
and moves on. Leaves lead to themselves. It is the traversal of Hummingbird (Nakandala et al., "A
Tensor Compiler for Unified Machine Learning Prediction Serving", OSDI 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.frontends.onnx_rewrites.base import ML, Rewrite, Site, Unknown
from autotune.frontends.onnx_rewrites.ml_linear import (
    labels_of,
    named,
    rows_of,
    transformed,
    two_columns,
)

DEEPEST = 64
"""Levels above which compiling the walk is not worth it."""


@dataclass
class Trees:
    """All nodes of an ensemble one after the other, and where each tree begins.

    A row goes to ``left`` where its feature is at most the threshold, or equals it where ``equal``;
    where it is not a number, if ``missing``.
    """

    features: Any
    thresholds: Any
    left: Any
    right: Any
    equal: Any
    missing: Any
    roots: Any
    depth: int
    places: dict[tuple[int, int], int]


def trees_of(site: Site) -> Trees:
    """Raises ``Unknown`` for what is no tree or compares in another way."""
    import numpy as np

    def column(name: str, dtype: Any) -> Any:
        return np.asarray(site.attribute(f"nodes_{name}") or [], dtype)

    if site.attribute("nodes_values_as_tensor") is not None:
        raise Unknown(f"a {site.operator} compares in float64")
    trees, ids = column("treeids", np.int64), column("nodeids", np.int64)
    modes = site.attribute("nodes_modes") or []
    if not len(trees) or len(modes) != len(trees):
        raise Unknown(f"a {site.operator} has no trees")
    places = {key: i for i, key in enumerate(zip(trees.tolist(), ids.tolist(), strict=True))}
    thresholds = column("values", np.float32).copy()
    features = column("featureids", np.int32)
    tracks = column("missing_value_tracks_true", bool)
    missing = tracks if len(tracks) else np.zeros(len(trees), bool)
    true, false = column("truenodeids", np.int64), column("falsenodeids", np.int64)
    left, right = (np.arange(len(trees), dtype=np.int32) for _ in range(2))
    equal = np.zeros(len(trees), bool)
    children = set()
    for i, mode in enumerate(modes):
        if mode == "LEAF":
            features[i], thresholds[i], missing[i] = 0, 0, False
            continue
        yes, no = places[trees[i], true[i]], places[trees[i], false[i]]
        children |= {yes, no}
        if mode in ("BRANCH_LT", "BRANCH_GTE"):
            thresholds[i] = np.nextafter(thresholds[i], np.float32(-np.inf))
        if mode in ("BRANCH_GT", "BRANCH_GTE", "BRANCH_NEQ"):
            yes, no, missing[i] = no, yes, not missing[i]
        if mode in ("BRANCH_EQ", "BRANCH_NEQ"):
            equal[i] = True
        elif mode not in ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE"):
            raise Unknown(f"a {site.operator} has nodes of {mode}")
        left[i], right[i] = yes, no
    roots = np.array([i for i in range(len(trees)) if i not in children], np.int32)
    if len(roots) != len(set(trees.tolist())):
        raise Unknown(f"a {site.operator} has a tree without a root")
    depth, level = 0, roots
    while not all(modes[i] == "LEAF" for i in level):
        depth += 1
        if depth > DEEPEST:
            raise Unknown(f"a {site.operator} has trees of more than {DEEPEST} levels")
        level = np.unique(np.concatenate([left[level], right[level]]))
    return Trees(features, thresholds, left, right, equal, missing, roots, depth, places)


def leaves(site: Site, trees: Trees) -> str:
    """The leaf that each row reaches in each tree: rows by trees, numbers of nodes."""
    import numpy as np

    x = rows_of(site)
    rows = (site.shape(site.input(0)) if len(site.shape(site.input(0))) == 2 else (1, 0))[0]
    count = len(trees.roots)
    place: Any = np.broadcast_to(trees.roots, (rows, count)).copy()
    for level in range(trees.depth):

        def look(table: Any, place: Any = place, first: bool = level == 0) -> Any:
            return table[place] if first else site.emit("Gather", table, place, axis=0)

        value = site.emit("GatherElements", x, look(trees.features), axis=1)
        threshold = look(trees.thresholds)
        goes = site.emit("LessOrEqual", value, threshold)
        if trees.equal.any():
            same = site.emit("Equal", value, threshold)
            goes = site.emit("Where", look(trees.equal), same, goes)
        if trees.missing.any():
            empty = site.emit("And", site.emit("IsNaN", value), look(trees.missing))
            goes = site.emit("Or", goes, empty)
        place = site.emit("Where", goes, look(trees.left), look(trees.right))
    return site.name(place)


def _summed(
    site: Site, kind: str, columns: int, ids: Any, weights: Any = None, based: bool = True
) -> str:
    """The sums of what the leaves hold: rows by ``columns``. Without base values, unless ``based``.

    ``weights`` stand for those of the node.
    """
    import numpy as np

    if site.attribute(f"{kind}_weights_as_tensor") is not None:
        raise Unknown(f"a {site.operator} adds up in float64")
    trees = trees_of(site)
    held = np.zeros((len(trees.features), columns), np.float32)
    where = zip(site.attribute(f"{kind}_treeids"), site.attribute(f"{kind}_nodeids"), strict=True)
    weights = site.attribute(f"{kind}_weights") if weights is None else weights
    for key, column, weight in zip(where, ids, weights, strict=True):
        held[trees.places[key], column] += weight
    place, count = leaves(site, trees), len(trees.roots)
    found = site.emit("Gather", held, place, axis=0)  # rows, trees, columns
    how = site.attribute("aggregate_function", "SUM")
    if how not in ("SUM", "AVERAGE"):
        raise Unknown(f"a {site.operator} takes the {how} of its trees")
    share = np.full((1, count), 1.0 if how == "SUM" else 1.0 / count, np.float32)
    total = site.reshape(site.emit("MatMul", share, found), (-1, columns))
    base = (site.attribute("base_values") or []) if based else []
    if len(base) == columns:
        total = site.emit("Add", total, np.asarray(base, np.float32))
    elif len(base):
        raise Unknown(f"a {site.operator} has {len(base)} base values for {columns} columns")
    return total


def tree_regressor(site: Site) -> Sequence[str]:
    columns = site.attribute("n_targets", 1)
    return [transformed(site, _summed(site, "target", columns, site.attribute("target_ids")))]


def tree_classifier(site: Site) -> Sequence[str]:
    import numpy as np

    labels = labels_of(site, "classlabels_strings", "classlabels_int64s")
    ids = site.attribute("class_ids")
    if len(labels) != 2 or len(set(ids)) != 1:
        scores = _summed(site, "class", len(labels), ids)
        weights, chosen = site.attribute("class_weights"), scores
        if len(labels) == 2:
            raise Unknown(f"a {site.operator} has a score for each of two classes")
        if min(weights) < 0 and not site.attribute("base_values"):
            # ONNX Runtime does not choose a class that no leaf spoke of, though others be below it.
            told = _summed(site, "class", len(labels), ids, [1.0] * len(ids), based=False)
            known = site.emit("Greater", told, np.float32(0))
            chosen = site.emit("Where", known, scores, np.float32(-3e38))
        return [named(site, chosen, labels), transformed(site, scores)]
    # Two classes, and one score: a probability where no weight is negative, or else a distance.
    score = _summed(site, "class", 1, [0] * len(ids))
    positive = min(site.attribute("class_weights")) >= 0
    yes = site.emit("Greater", score, np.float32(0.5 if positive else 0.0))
    label = site.reshape(site.emit("Where", yes, labels[1], labels[0]), (-1,))
    return [label, two_columns(site, score, positive)]


REWRITES = (
    Rewrite(("TreeEnsembleRegressor",), tree_regressor, domain=ML),
    Rewrite(("TreeEnsembleClassifier",), tree_classifier, domain=ML),
)
