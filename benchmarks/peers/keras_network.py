"""The same network in Keras 3, as its users write it: the functional interface, NHWC, on TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Keras reads this only when it is imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.contest import PEOPLE, Call, Cell, make_faces, repeat
from benchmarks.contests import DECAY, MOMENTUM, RATE
from benchmarks.peers.layers import Layer, list_blocks, read_weights
from ffem_jax.specs.architecture import NetworkSpec


def build_classifier(network: NetworkSpec, resolution: int, people: int) -> keras.Model:
    """Pixels [N, R, R, 3] in -1 to 1 -> embeddings [N, embedding_dim], logits [N, people]."""
    pixels = x = keras.Input((resolution, resolution, 3))
    for block in list_blocks(network):
        y = x
        for layer in block.layers:
            y = _convolve(y, layer) if layer.kind == "convolution" else _attend(y, layer)
        x = layers.Add()([x, y]) if block.shortcut else y
    embeddings = layers.Dense(network.embedding_dim, name="embedding")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(pixels, [embeddings, layers.Dense(people, name="classifier")(embeddings)])


def _convolve(x: Any, layer: Layer) -> Any:
    """Convolution, BatchNorm, activation."""
    options = {"padding": "same", "use_bias": False, "name": layer.name}
    if layer.stride > 1:
        # Keras's "same" does not pad before the first row of an even map at stride 2; keras.applications does so.
        x, options["padding"] = layers.ZeroPadding2D(1)(x), "valid"
    if layer.groups > 1:
        x = layers.DepthwiseConv2D(layer.size, layer.stride, **options)(x)
    else:
        x = layers.Conv2D(layer.outputs, layer.size, layer.stride, **options)(x)
    # Keras's momentum, like Flax's, is the weight of the old running statistics.
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{layer.name}_norm")(x)
    return layers.ReLU(max_value=6)(x) if layer.active else x


def _attend(x: Any, layer: Layer) -> Any:
    gate = layers.GlobalAveragePooling2D()(x)
    if layer.kind == "eca":
        gate = layers.Reshape((layer.inputs, 1))(gate)
        gate = layers.Conv1D(1, layer.size, padding="same", use_bias=False, name=layer.name)(gate)
    else:
        gate = layers.Dense(layer.size, activation="relu", name=f"{layer.name}_reduce")(gate)
        gate = layers.Dense(layer.inputs, name=f"{layer.name}_excite")(gate)
    gate = layers.Reshape((1, 1, layer.inputs))(layers.Activation("sigmoid")(gate))
    return layers.Multiply()([x, gate])


def copy_weights(classifier: Any, peer: keras.Model) -> None:
    """Write the weights of an `ffem_jax.training.classifier.FaceClassifier` with a plain softmax into its peer."""
    for name, arrays in read_weights(classifier).items():
        own = [layer for layer in peer.layers if layer.name == name or layer.name.startswith(f"{name}_")]
        variables = [variable for layer in own for variable in layer.weights]
        # Kernels are [row, column, in, out] in both; a depthwise one is [3, 3, 1, C] here and [3, 3, C, 1] there, which
        # are the same numbers in the same order.
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(np.reshape(array, variable.shape))


def train(cell: Cell, folder: Path) -> Call:
    """Return calls of the compiled step that `model.fit` uses, on a tf.data pipeline as `fit` builds it."""
    classifier = build_classifier(cell.spec, cell.resolution, PEOPLE)
    pixels = keras.Input((cell.resolution, cell.resolution, 3), dtype="uint8")
    _, logits = classifier(layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    model = keras.Model(pixels, logits)
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile="auto")
    model.make_train_function()
    images, people = (tf.constant(array) for array in make_faces(cell.resolution))
    count = len(images)
    order = tf.data.Dataset.range(count).shuffle(count).repeat().batch(cell.batch, drop_remainder=True)
    batches = order.map(lambda chosen: (tf.gather(images, chosen), tf.gather(people, chosen)))
    iterator = iter(batches.prefetch(tf.data.AUTOTUNE))

    def call(steps: int) -> None:
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])

    return call


def embed(cell: Cell, folder: Path) -> Call:
    """Return calls of a tf.function of the deployed model."""
    classifier = build_classifier(cell.spec, cell.resolution, PEOPLE)
    classifier.load_weights(folder / "keras.weights.h5")
    pixels = keras.Input((cell.resolution, cell.resolution, 3), dtype="uint8")
    embeddings, _ = classifier(layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    model = keras.Model(pixels, embeddings)
    signature = tf.TensorSpec((cell.batch, cell.resolution, cell.resolution, 3), tf.uint8)
    apply = tf.function(lambda images: model(images, training=False), input_signature=[signature])
    return repeat(lambda images: apply(images).numpy(), cell)


def write_weights(classifier: Any, cell: Cell, folder: Path) -> None:
    """Write our weights for Keras."""
    peer = build_classifier(cell.spec, cell.resolution, PEOPLE)
    copy_weights(classifier, peer)
    peer.save_weights(folder / "keras.weights.h5")
