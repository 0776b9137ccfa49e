"""Keras by tf2onnx: channels last, loops of recurrences, computed shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Maker, Shapes, run

PACKAGES = ("tf2onnx", "tensorflow-cpu")
OPSETS = (11, 15, 18)


def makers() -> dict[str, Maker]:
    import numpy as np
    import tensorflow as tf
    import tf2onnx

    if not hasattr(np, "cast"):  # tf2onnx asks for what numpy 2 has no more
        np.cast = {np.dtype(kind).type: np.dtype(kind).type for kind in "fdil"}
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)

    def cnn(x: Any) -> Any:
        x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(layers.Conv2D(16, 3)(x))
        x = layers.MaxPooling2D()(layers.ReLU(6.0)(x))
        return layers.Dense(10, activation="softmax")(layers.Flatten()(x))

    def mobile(x: Any) -> Any:
        x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        for stride in (1, 2):
            y = layers.Conv2D(24, 1, use_bias=False)(x)
            y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
            y = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(y)
            y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
            y = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(y))
            x = layers.Add()([x, y]) if stride == 1 else y
        s = layers.GlobalAveragePooling2D(keepdims=True)(x)
        s = layers.Dense(8, activation="hard_sigmoid")(layers.Dense(4, activation="swish")(s))
        return layers.Dense(10)(layers.GlobalAveragePooling2D()(layers.Multiply()([x, s])))

    def unet(x: Any) -> Any:
        a = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        b = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
        up = layers.UpSampling2D(interpolation="bilinear")(b)
        up = layers.Concatenate()([up, a])
        c = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(up)
        return layers.Conv2D(2, 1, activation="sigmoid")(c)

    def transformer(x: Any) -> Any:
        a = layers.MultiHeadAttention(4, 8)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, a]))
        f = layers.Dense(16)(layers.Dense(64, activation="gelu")(x))
        return layers.Dense(3)(
            layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([x, f])))
        )

    def words(x: Any) -> Any:
        x = layers.Embedding(50, 16)(x)
        return layers.Dense(2, activation="softmax")(layers.LSTM(8)(x))

    def masked(x: Any) -> Any:
        x = layers.Embedding(50, 16, mask_zero=True)(x)
        return layers.Dense(2)(layers.GRU(8)(x))

    image, row = (32, 32, 3), (6, 16)
    models: dict[str, tuple[Any, tuple[int, ...], str]] = {
        "cnn": (cnn, image, "float32"),
        "mobile": (mobile, image, "float32"),
        "unet": (unet, image, "float32"),
        "lstm": (lambda x: layers.LSTM(8, return_sequences=True)(x), row, "float32"),
        "gru": (lambda x: layers.GRU(8)(x), row, "float32"),
        "gru_before": (lambda x: layers.GRU(8, reset_after=False)(x), row, "float32"),
        "rnn": (lambda x: layers.SimpleRNN(8)(x), row, "float32"),
        "both_ways": (lambda x: layers.Bidirectional(layers.LSTM(8))(x), row, "float32"),
        "attention": (lambda x: layers.Attention()([x, x]), row, "float32"),
        "transformer": (transformer, row, "float32"),
        "words": (words, (6,), "int32"),
        "masked": (masked, (6,), "int32"),
        "conv1d": (lambda x: layers.Conv1D(8, 3, padding="causal")(x), row, "float32"),
        "conv3d": (lambda x: layers.MaxPooling3D()(layers.Conv3D(4, 3)(x)), (8, 8, 8, 2),
                   "float32"),
        "separable": (lambda x: layers.SeparableConv2D(8, 3)(x), image, "float32"),
        "pads": (lambda x: layers.ZeroPadding2D(2)(layers.Cropping2D(1)(x)), image, "float32"),
        "nearest": (lambda x: layers.UpSampling2D(3)(x), image, "float32"),
        "bicubic": (lambda x: layers.UpSampling2D(2, interpolation="bicubic")(x), image,
                    "float32"),
        "norm": (lambda x: layers.UnitNormalization()(layers.GroupNormalization(1)(x)), image,
                 "float32"),
        "activations": (lambda x: layers.Concatenate()(
            [layers.Activation(name)(x) for name in
             ("elu", "selu", "softplus", "softsign", "swish", "gelu", "exponential", "mish")]),
            row, "float32"),
    }  # fmt: skip

    def export(name: str, opset: int, fixed: bool = False) -> Maker:
        build, shape, dtype = models[name]

        def make(path: Path) -> Shapes:
            given = tf.keras.Input(shape, batch_size=1 if fixed else None, dtype=dtype)
            model = tf.keras.Model(given, build(given))
            spec = tf.TensorSpec((1 if fixed else None, *shape), dtype, name="x")
            called = tf.function(lambda x: model(x, training=False), input_signature=[spec])
            made, _ = tf2onnx.convert.from_function(called, [spec], opset=opset)
            path.write_bytes(made.SerializeToString())
            return {} if fixed else {"x": (2, *shape)}

        return make

    found = {f"{name}_{OPSETS[1]}": export(name, OPSETS[1]) for name in models}
    for opset in (OPSETS[0], OPSETS[2]):
        for name in ("cnn", "mobile", "unet", "lstm", "gru", "transformer", "words"):
            found[f"{name}_{opset}"] = export(name, opset)
    for name in ("mobile", "lstm", "transformer"):
        found[f"{name}_fixed"] = export(name, OPSETS[1], True)
    return found


if __name__ == "__main__":
    run(PACKAGES, makers)
