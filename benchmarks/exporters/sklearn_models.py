"""scikit-learn, XGBoost and LightGBM by sklearn-onnx and onnxmltools: operators of ai.onnx.ml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Maker, Shapes, run

ROWS, FEATURES = 5, 6
PACKAGES = ("skl2onnx", "scikit-learn", "onnxmltools", "xgboost", "lightgbm")


def makers() -> dict[str, Maker]:
    import numpy as np
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn import (
        cluster,
        discriminant_analysis,
        ensemble,
        feature_selection,
        gaussian_process,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        preprocessing,
        svm,
        tree,
    )
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA, TruncatedSVD
    from sklearn.impute import SimpleImputer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, FEATURES)).astype(np.float32) * 2
    score = x[:, 0] - x[:, 1] * x[:, 2]
    two, three = (score > 0).astype(np.int64), np.digitize(score, [-1.5, 1.5])
    real = (score + 0.1 * rng.standard_normal(200)).astype(np.float32)
    holes = np.where(rng.random(x.shape) < 0.1, np.nan, x).astype(np.float32)
    ints = rng.integers(0, 4, (200, 3))
    words = np.array([["red", "green", "blue"][i] for i in ints[:, 0] % 3]).reshape(-1, 1)

    def saved(path: Path, model: Any, kind: Any, **options: Any) -> None:
        made = to_onnx(model, initial_types=kind, **options)
        path.write_bytes(made.SerializeToString())

    def plain(model: Any, y: Any, zipmap: Any = False, data: Any = x, **more: Any) -> Maker:
        def make(path: Path) -> Shapes:
            model.fit(data, y) if y is not None else model.fit(data)
            wide = FloatTensorType if data.dtype.kind == "f" else Int64TensorType
            options = {"options": {id(model): {"zipmap": zipmap}}} if zipmap is not None else {}
            saved(path, model, [("X", wide([None, data.shape[1]]))], **options, **more)
            return {"X": (ROWS, data.shape[1])}

        return make

    def transform(model: Any, y: Any = None, data: Any = x, **more: Any) -> Maker:
        return plain(model, y, None, data, **more)

    def columns(path: Path) -> Shapes:
        """Numbers and classes, each with a preparation of its own."""
        prepare = ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(), preprocessing.StandardScaler()), [0, 1]),
                ("c", preprocessing.OneHotEncoder(handle_unknown="ignore"), [2]),
            ]
        )
        model = make_pipeline(prepare, linear_model.LogisticRegression())
        table = np.column_stack([x[:, :2], ints[:, :1]]).astype(np.float32)
        model.fit(table, two)
        saved(path, model, [("X", FloatTensorType([None, 3]))], options={"zipmap": False})
        return {"X": (ROWS, 3)}

    def strings(path: Path) -> Shapes:
        model = preprocessing.OneHotEncoder().fit(words)
        saved(path, model, [("X", StringTensorType([None, 1]))])
        return {"X": (ROWS, 1)}

    def several(path: Path) -> Shapes:
        """One input a column, as from a data frame."""
        table = np.column_stack([x[:, :2], ints[:, :1]]).astype(np.float32)
        prepare = ColumnTransformer(
            [
                ("n", preprocessing.StandardScaler(), [0, 1]),
                ("c", preprocessing.OneHotEncoder(), [2]),
            ]
        )
        model = make_pipeline(prepare, ensemble.RandomForestClassifier(8, random_state=0))
        model.fit(table, two)
        kinds = [
            ("a", FloatTensorType([None, 1])),
            ("b", FloatTensorType([None, 1])),
            ("c", FloatTensorType([None, 1])),
        ]
        saved(path, model, kinds, options={"zipmap": False})
        return {name: (ROWS, 1) for name in "abc"}

    def boosted(kind: str, library: str) -> Maker:
        def make(path: Path) -> Shapes:
            import lightgbm
            import onnxmltools
            import xgboost
            from onnxmltools.convert.common.data_types import FloatTensorType as Floats

            package = {"XGB": xgboost, "LGBM": lightgbm}[library]
            model = getattr(package, library + kind)(n_estimators=12, max_depth=4)
            model.fit(x, real if kind == "Regressor" else three)
            convert = {"XGB": onnxmltools.convert_xgboost, "LGBM": onnxmltools.convert_lightgbm}
            more = {"zipmap": False} if library == "LGBM" and kind == "Classifier" else {}
            made = convert[library](
                model, initial_types=[("X", Floats([None, FEATURES]))], target_opset=15, **more
            )
            path.write_bytes(made.SerializeToString())
            return {"X": (ROWS, FEATURES)}

        return make

    named = np.array(["no", "yes"])[two]
    forest = ensemble.RandomForestClassifier
    return {
        "logistic2": plain(linear_model.LogisticRegression(), two),
        "logistic3": plain(linear_model.LogisticRegression(), three),
        "logistic_zipmap": plain(linear_model.LogisticRegression(), three, True),
        "logistic_columns": plain(linear_model.LogisticRegression(), three, "columns"),
        "logistic_names": plain(linear_model.LogisticRegression(), named),
        "logistic_rest": plain(OneVsRestClassifier(linear_model.LogisticRegression()), three),
        "logistic_raw": transform(linear_model.RidgeClassifier(), three),
        "linear": transform(linear_model.LinearRegression(), real),
        "linear_two": transform(linear_model.Ridge(), np.column_stack([real, -real])),
        "lasso": transform(linear_model.Lasso(0.01), real),
        "sgd": plain(linear_model.SGDClassifier(loss="log_loss", random_state=0), three),
        "mlp_classes": plain(neural_network.MLPClassifier((16,), max_iter=60), three),
        "mlp_binary": plain(neural_network.MLPClassifier((16,), max_iter=60), two),
        "mlp_real": transform(neural_network.MLPRegressor(hidden_layer_sizes=(16, 8), max_iter=60),
                              real),
        "scaled_pca": plain(make_pipeline(preprocessing.StandardScaler(), PCA(3),
                                          linear_model.LogisticRegression()), three, None,
                            options={"zipmap": False}),
        "svd": transform(TruncatedSVD(3)),
        "svc": plain(svm.SVC(), two),
        "svc3": plain(svm.SVC(), three),
        "svc_chance": plain(svm.SVC(probability=True, random_state=0), three),
        "svc_poly": plain(svm.SVC(kernel="poly", degree=3), three),
        "svc_linear": plain(svm.SVC(kernel="linear"), two),
        "svc_sigmoid": plain(svm.SVC(kernel="sigmoid"), three),
        "linear_svc": transform(svm.LinearSVC(), three),
        "svr": transform(svm.SVR(), real),
        "one_class": transform(svm.OneClassSVM()),
        "tree": plain(tree.DecisionTreeClassifier(random_state=0), three),
        "tree_real": transform(tree.DecisionTreeRegressor(random_state=0), real),
        "forest": plain(forest(20, random_state=0), three),
        "forest_binary": plain(forest(20, max_depth=4, random_state=0), two),
        "forest_zipmap": plain(forest(5, random_state=0), three, True),
        "forest_names": plain(forest(5, random_state=0), named),
        "forest_real": transform(ensemble.RandomForestRegressor(20, random_state=0), real),
        "extra_trees": plain(ensemble.ExtraTreesClassifier(10, random_state=0), three),
        "boosting": plain(ensemble.GradientBoostingClassifier(n_estimators=20), three),
        "boosting_binary": plain(ensemble.GradientBoostingClassifier(n_estimators=20), two),
        "boosting_real": transform(ensemble.GradientBoostingRegressor(n_estimators=20), real),
        "histogram": plain(ensemble.HistGradientBoostingClassifier(max_iter=20), two),
        "histogram_holes": transform(ensemble.HistGradientBoostingRegressor(max_iter=20), real,
                                     data=holes),
        "adaboost": plain(ensemble.AdaBoostClassifier(n_estimators=8), three),
        "bagging": plain(ensemble.BaggingClassifier(n_estimators=4, random_state=0), two),
        "voting": plain(ensemble.VotingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier())],
            voting="soft", flatten_transform=False), two),
        "isolation": transform(ensemble.IsolationForest(n_estimators=10, random_state=0),
                               target_opset={"": 15, "ai.onnx.ml": 3}),
        "neighbours": plain(neighbors.KNeighborsClassifier(3), three),
        "neighbours_real": transform(neighbors.KNeighborsRegressor(3), real),
        "kmeans": transform(cluster.KMeans(4, n_init=1, random_state=0)),
        "bayes": plain(naive_bayes.GaussianNB(), three),
        "bayes_counts": plain(naive_bayes.MultinomialNB(), three, data=np.abs(x)),
        "discriminant": plain(discriminant_analysis.LinearDiscriminantAnalysis(), three),
        "gaussian_process": transform(gaussian_process.GaussianProcessRegressor(), real),
        "calibrated": plain(CalibratedClassifierCV(svm.LinearSVC(), cv=2), three),
        "standard": transform(preprocessing.StandardScaler()),
        "minmax": transform(preprocessing.MinMaxScaler()),
        "maxabs": transform(preprocessing.MaxAbsScaler()),
        "robust": transform(preprocessing.RobustScaler()),
        "norm_l2": transform(preprocessing.Normalizer("l2")),
        "norm_l1": transform(preprocessing.Normalizer("l1")),
        "norm_max": transform(preprocessing.Normalizer("max")),
        "binarizer": transform(preprocessing.Binarizer(threshold=0.3)),
        "imputer": transform(SimpleImputer(), data=holes),
        "polynomial": transform(preprocessing.PolynomialFeatures(2)),
        "bins": transform(preprocessing.KBinsDiscretizer(4, encode="onehot-dense")),
        "bins_number": transform(preprocessing.KBinsDiscretizer(4, encode="ordinal")),
        "best": transform(feature_selection.SelectKBest(k=3), three),
        "one_hot": transform(preprocessing.OneHotEncoder(), data=ints),
        "one_hot_unknown": transform(preprocessing.OneHotEncoder(handle_unknown="ignore"),
                                     data=ints),
        "ordinal": transform(preprocessing.OrdinalEncoder(), data=ints),
        "one_hot_words": strings,
        "columns": columns,
        "several_inputs": several,
        "xgboost": boosted("Classifier", "XGB"),
        "xgboost_real": boosted("Regressor", "XGB"),
        "lightgbm": boosted("Classifier", "LGBM"),
        "lightgbm_real": boosted("Regressor", "LGBM"),
    }  # fmt: skip


if __name__ == "__main__":
    run(PACKAGES, makers)
