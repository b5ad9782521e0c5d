"""The one table of a network's layers and of their weights, which every peer is built and filled from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ffem_jax.specs.architecture import BlockSpec, NetworkSpec


class Layer(NamedTuple):
    """A layer of a peer.

    kind: `convolution` (with BatchNorm and activation), `eca` or `se`. size: of the kernel; of SE, channels between its
    dense layers. groups: of the convolution.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    groups: int = 1
    activation: str = "linear"


class Block(NamedTuple):
    """Layers one after another, and whether what goes in is added to what comes out."""

    layers: list[Layer]
    shortcut: bool = False


def list_blocks(network: NetworkSpec) -> list[Block]:
    """All layers before the pooling. Raises ValueError for a network that the peers do not build."""
    if network.pooling != "average":
        raise ValueError(f"pooling {network.pooling!r} has no peer; choose one of: average")
    kinds = {block.kind for block in network.blocks}
    if network.stem_extra != "none" or network.embedding_norm or kinds != {"bottleneck"}:
        raise ValueError("a network of shuffle units or with stem_extra or embedding_norm has no peer")
    stem, last = network.stem_channels, network.blocks[-1].out_channels
    blocks = [Block([Layer("stem", "convolution", 3, stem, 3, network.stem_stride, 1, network.activation)])]
    blocks += [_list_bottleneck(f"block{index}", block) for index, block in enumerate(network.blocks)]
    if network.head_channels:
        head = Layer("head", "convolution", last, network.head_channels, 1, activation=network.activation)
        blocks.append(Block([head]))
    return blocks


def _list_bottleneck(name: str, spec: BlockSpec) -> Block:
    """Inverted residual; attention after the depthwise convolution or after the projection."""
    inputs, hidden, outputs, activation = spec.in_channels, spec.hidden_channels, spec.out_channels, spec.activation
    kind, position, fusion, size = spec.attention or ("", "", "", 0)
    if fusion not in ("", "scale"):
        raise ValueError(f"fusion {fusion!r} has no peer; choose one of: scale")
    if kind not in ("", "eca", "se"):
        raise ValueError(f"attention {kind!r} has no peer; choose one of: none, eca, se")
    layers = [Layer(f"{name}_expand", "convolution", inputs, hidden, 1, activation=activation)]
    layers = layers if hidden != inputs else []
    layers.append(Layer(f"{name}_depthwise", "convolution", hidden, hidden, 3, spec.stride, hidden, activation))
    if position == "depthwise":
        layers.append(Layer(f"{name}_attention", kind, hidden, hidden, size))
    layers.append(Layer(f"{name}_project", "convolution", hidden, outputs, 1))
    if position == "projection":
        layers.append(Layer(f"{name}_attention", kind, outputs, outputs, size))
    return Block(layers, spec.stride == 1 and inputs == outputs)


def read_weights(classifier: Any) -> dict[str, list[np.ndarray]]:
    """The weights of a `training.classifier.FaceClassifier` with a plain softmax, by the layer's name.

    Kernels are [row, column, in, out], depthwise ones [row, column, 1, channel], pointwise and dense ones [in, out]. A
    convolution's kernel is followed by BatchNorm's scale, bias, mean and variance, and PReLU's slopes where it has any.
    """
    network, found = classifier.network, {}

    def add(name: str, *values: Any) -> None:
        found[name] = [np.asarray(value[...], np.float32) for value in values]

    def add_convolution(name: str, source: Any, kernel: Any) -> None:
        slopes = [source.activation.slope] if hasattr(source.activation, "slope") else []
        add(name, kernel, source.norm.scale, source.norm.bias, source.norm.mean, source.norm.var, *slopes)

    add_convolution("stem", network.stem, network.stem.kernel)
    for index, block in enumerate(network.blocks):
        name, attention = f"block{index}", block.attention
        if block.expand is not None:
            add_convolution(f"{name}_expand", block.expand, block.expand.conv.kernel)
        add_convolution(f"{name}_depthwise", block.depthwise, block.depthwise.kernel)
        add_convolution(f"{name}_project", block.project, block.project.conv.kernel)
        if hasattr(attention, "conv"):
            add(f"{name}_attention", attention.conv.kernel)
        elif attention is not None:
            reduce, expand = attention.reduce, attention.expand
            add(f"{name}_attention", reduce.kernel, reduce.bias, expand.kernel, expand.bias)
    if network.head.conv is not None:
        add_convolution("head", network.head.conv, network.head.conv.conv.kernel)
    for name, dense in (("embedding", network.head.embedding), ("classifier", classifier.classifier)):
        add(name, dense.kernel, dense.bias)
    return found
