"""A table of a network's layers and their weights, from which every peer is built and filled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ffem_jax.specs.architecture import BlockSpec, NetworkSpec


class Layer(NamedTuple):
    """A layer of a peer: `convolution` with BatchNorm and, if `active`, ReLU6; `eca` or `se`.

    size: the kernel's size; for SE, the channels between its dense layers. groups: of the convolution.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    groups: int = 1
    active: bool = False


class Block(NamedTuple):
    """Layers in sequence, and whether the input is added to the output."""

    layers: list[Layer]
    shortcut: bool = False


def list_blocks(network: NetworkSpec) -> list[Block]:
    """Return all layers before the pooling. Raises ValueError for a network that the peers cannot build."""
    kinds = {(block.kind, block.activation) for block in network.blocks} | {("bottleneck", network.activation)}
    plain = network.pooling == "average" and network.stem_extra == "none" and not network.embedding_norm
    if not plain or kinds != {("bottleneck", "relu6")}:
        raise ValueError("a network with anything but bottlenecks, ReLU6 and average pooling has no peer")
    stem, last = network.stem_channels, network.blocks[-1].out_channels
    blocks = [Block([Layer("stem", "convolution", 3, stem, 3, network.stem_stride, active=True)])]
    blocks += [_list_bottleneck(f"block{index}", block) for index, block in enumerate(network.blocks)]
    if network.head_channels:
        blocks.append(Block([Layer("head", "convolution", last, network.head_channels, 1, active=True)]))
    return blocks


def _list_bottleneck(name: str, spec: BlockSpec) -> Block:
    """Inverted residual; attention after the depthwise convolution or after the projection."""
    inputs, hidden, outputs = spec.in_channels, spec.hidden_channels, spec.out_channels
    kind, position, fusion, size = spec.attention or ("", "", "scale", 0)
    if fusion != "scale" or kind not in ("", "eca", "se"):
        raise ValueError(f"attention {kind!r} with fusion {fusion!r} has no peer; choose one of: none, eca, se; scale")
    layers = [Layer(f"{name}_expand", "convolution", inputs, hidden, 1, active=True)] if hidden != inputs else []
    layers.append(Layer(f"{name}_depthwise", "convolution", hidden, hidden, 3, spec.stride, hidden, True))
    if position == "depthwise":
        layers.append(Layer(f"{name}_attention", kind, hidden, hidden, size))
    layers.append(Layer(f"{name}_project", "convolution", hidden, outputs, 1))
    if position == "projection":
        layers.append(Layer(f"{name}_attention", kind, outputs, outputs, size))
    return Block(layers, spec.stride == 1 and inputs == outputs)


def read_weights(classifier: Any) -> dict[str, list[np.ndarray]]:
    """Return the weights of a `training.classifier.FaceClassifier` with a plain softmax, by layer name.

    Kernels are [row, column, in, out], depthwise ones [row, column, 1, channel], pointwise and dense ones [in, out]. A
    convolution's kernel is followed by BatchNorm's scale, bias, mean and variance.
    """
    network, found = classifier.network, {}

    def add_convolution(name: str, source: Any, kernel: Any) -> None:
        found[name] = [kernel, source.norm.scale, source.norm.bias, source.norm.mean, source.norm.var]

    add_convolution("stem", network.stem, network.stem.kernel)
    for index, block in enumerate(network.blocks):
        name, attention = f"block{index}", block.attention
        if block.expand is not None:
            add_convolution(f"{name}_expand", block.expand, block.expand.conv.kernel)
        add_convolution(f"{name}_depthwise", block.depthwise, block.depthwise.kernel)
        add_convolution(f"{name}_project", block.project, block.project.conv.kernel)
        if hasattr(attention, "conv"):
            found[f"{name}_attention"] = [attention.conv.kernel]
        elif attention is not None:
            dense = (attention.reduce, attention.expand)
            found[f"{name}_attention"] = [values for layer in dense for values in (layer.kernel, layer.bias)]
    if network.head.conv is not None:
        add_convolution("head", network.head.conv, network.head.conv.conv.kernel)
    for name, dense in (("embedding", network.head.embedding), ("classifier", classifier.classifier)):
        found[name] = [dense.kernel, dense.bias]
    return {name: [np.asarray(value[...], np.float32) for value in values] for name, values in found.items()}
