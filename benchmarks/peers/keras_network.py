"""The same network in Keras 3, as its users write it: the functional interface, NHWC, on TensorFlow."""

from __future__ import annotations

import os
from typing import Any

# Read when Keras is imported, and never again.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from keras import layers

from ffem_jax.specs.architecture import BlockSpec, NetworkSpec


def build_keras_classifier(network: NetworkSpec, resolution: int, people: int) -> keras.Model:
    """Pixels [N, R, R, 3] in -1 to 1 -> embeddings [N, embedding_dim], logits [N, people]."""
    if network.pooling != "average":
        raise ValueError(f"pooling {network.pooling!r} has no peer; choose one of: average")
    if (
        network.stem_extra != "none"
        or network.embedding_norm
        or {block.kind for block in network.blocks} != {"bottleneck"}
    ):
        raise ValueError("a network of shuffle units or with stem_extra or embedding_norm has no peer")
    pixels = keras.Input((resolution, resolution, 3))
    stride = network.stem_stride
    stem = layers.Conv2D(network.stem_channels, 3, stride, _padding(stride), use_bias=False, name="stem")
    x = _convolve(pixels, stem, network.activation)
    for index, block in enumerate(network.blocks):
        x = _bottleneck(x, f"block{index}", block)
    if network.head_channels:
        x = _pointwise(x, "head", network.head_channels, network.activation)
    x = layers.GlobalAveragePooling2D()(x)
    embeddings = layers.Dense(network.embedding_dim, name="embedding")(x)
    return keras.Model(pixels, [embeddings, layers.Dense(people, name="classifier")(embeddings)])


def _padding(stride: int) -> str:
    return "same" if stride == 1 else "valid"


def _convolve(x: Any, conv: layers.Layer, activation: str) -> Any:
    """`conv`, BatchNorm, activation."""
    if conv.padding == "valid":
        # Keras's own "same" puts no zeros before the first row of an even map at stride 2; keras.applications do this.
        x = layers.ZeroPadding2D(1)(x)
    # Keras's momentum, as Flax's, is what the running statistics keep of themselves.
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{conv.name}_norm")(conv(x))
    if activation == "relu6":
        return layers.ReLU(max_value=6)(x)
    if activation == "hard_swish":
        return layers.Activation("hard_swish")(x)
    if activation == "prelu":
        return layers.PReLU("zeros", shared_axes=[1, 2], name=f"{conv.name}_slope")(x)
    return x


def _pointwise(x: Any, name: str, channels: int, activation: str) -> Any:
    return _convolve(x, layers.Conv2D(channels, 1, padding="same", use_bias=False, name=name), activation)


def _bottleneck(x: Any, name: str, spec: BlockSpec) -> Any:
    kind, position, fusion, size = spec.attention or ("", "", "", 0)
    if fusion not in ("", "scale"):
        raise ValueError(f"fusion {fusion!r} has no peer; choose one of: scale")
    y = x
    if spec.hidden_channels != spec.in_channels:
        y = _pointwise(y, f"{name}_expand", spec.hidden_channels, spec.activation)
    padding = _padding(spec.stride)
    conv = layers.DepthwiseConv2D(3, spec.stride, padding, use_bias=False, name=f"{name}_depthwise")
    y = _convolve(y, conv, spec.activation)
    if position == "depthwise":
        y = _attend(y, name, kind, size)
    y = _pointwise(y, f"{name}_project", spec.out_channels, "linear")
    if position == "projection":
        y = _attend(y, name, kind, size)
    return layers.Add()([x, y]) if spec.stride == 1 and spec.in_channels == spec.out_channels else y


def _attend(x: Any, name: str, kind: str, size: int) -> Any:
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D()(x)
    if kind == "eca":
        gate = layers.Reshape((channels, 1))(gate)
        gate = layers.Conv1D(1, size, padding="same", use_bias=False, name=f"{name}_eca")(gate)
    else:
        gate = layers.Dense(size, activation="relu", name=f"{name}_reduce")(gate)
        gate = layers.Dense(channels, name=f"{name}_excite")(gate)
    gate = layers.Reshape((1, 1, channels))(layers.Activation("sigmoid")(gate))
    return layers.Multiply()([x, gate])


def copy_weights(classifier: Any, peer: keras.Model) -> None:
    """Write the weights of an `ffem_jax.training.classifier.FaceClassifier` with a plain softmax into its peer."""

    def put(name: str, *values: Any) -> None:
        weights = peer.get_layer(name).get_weights()
        arrays = [np.asarray(value[...], np.float32).reshape(w.shape) for value, w in zip(values, weights, strict=True)]
        peer.get_layer(name).set_weights(arrays)

    def put_convolution(name: str, source: Any, kernel: Any) -> None:
        # Kernels are [row, column, in, out] in both; a depthwise one is [3, 3, 1, C] here and [3, 3, C, 1] there,
        # which are the same numbers in the same order.
        put(name, kernel)
        put(f"{name}_norm", source.norm.scale, source.norm.bias, source.norm.mean, source.norm.var)
        if hasattr(source.activation, "slope"):
            put(f"{name}_slope", source.activation.slope)

    def put_dense(name: str, source: Any) -> None:
        put(name, source.kernel, source.bias)

    network = classifier.network
    put_convolution("stem", network.stem, network.stem.kernel)
    for index, block in enumerate(network.blocks):
        name = f"block{index}"
        if block.expand is not None:
            put_convolution(f"{name}_expand", block.expand, block.expand.conv.kernel)
        put_convolution(f"{name}_depthwise", block.depthwise, block.depthwise.kernel)
        put_convolution(f"{name}_project", block.project, block.project.conv.kernel)
        if hasattr(block.attention, "conv"):
            put(f"{name}_eca", block.attention.conv.kernel)
        elif block.attention is not None:
            put_dense(f"{name}_reduce", block.attention.reduce)
            put_dense(f"{name}_excite", block.attention.expand)
    if network.head.conv is not None:
        put_convolution("head", network.head.conv, network.head.conv.conv.kernel)
    put_dense("embedding", network.head.embedding)
    put_dense("classifier", classifier.classifier)
