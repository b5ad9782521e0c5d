"""A trained network to its list of layers: each BatchNorm goes into the convolution before it.

Of y = norm(conv(x)) the gain scale / sqrt(variance + epsilon) multiplies the kernel, and what is left is a bias.
Computed in float64, so that rounding to float32 happens once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from ffem_jax.export import ExportError
from ffem_jax.export.layers import (
    INPUT_NAME,
    OUTPUT_NAME,
    Add,
    ChannelConvolution,
    Convolution,
    Depthwise,
    Flatten,
    GlobalAveragePool,
    InterleaveChannels,
    Layer,
    LayerList,
    MaxPool,
    Multiply,
    SliceChannels,
)
from ffem_jax.models import FaceNetwork, attention, blocks, normalization
from ffem_jax.models.convolutions import max_pool

_ACTIVATION_NAMES: dict[Callable[..., Any], str] = {
    normalization.relu6: "relu6",
    nnx.relu: "relu",
    nnx.hard_swish: "hard_swish",
    nnx.identity: "linear",
}


def fold_network(model: FaceNetwork, resolution: int) -> LayerList:
    """The layers of `model`, trained for images of `resolution` pixels a side, in evaluation.

    Raises ExportError that names a block, an attention or an activation it does not know.
    """
    folder = _Folder()
    x = folder.fold_stem(model.stem)
    for index, block in enumerate(model.blocks):
        x = folder.fold_block(block, x, f"block{index}")
    folder.fold_head(model.head, x)
    return LayerList(resolution, tuple(folder.layers))


class _Folder:
    """Collects layers. Each method takes the tensor that it reads and returns the one it made, by name."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.channels: dict[str, int] = {}

    def add(self, layer: Layer, channels: int) -> str:
        self.layers.append(layer)
        self.channels[layer.name] = channels
        return layer.name

    def fold_stem(self, stem: blocks.Stem) -> str:
        kernel, bias = _fold_norm(stem.kernel[...], stem.norm)
        activation, slope = _name_activation(stem.activation)
        layer = Convolution("stem", (INPUT_NAME,), kernel, bias, stem.stride, 1, activation, slope)
        x = self.add(layer, len(bias))
        if stem.extra is None:
            return x
        if isinstance(stem.extra, blocks.Depthwise):
            return self.fold_depthwise(stem.extra, x, "stem/depthwise")
        if stem.extra is max_pool:
            return self.add(MaxPool("stem/pool", (x,)), len(bias))
        raise ExportError(f"export does not know {_describe(stem.extra)} after the stem")

    def fold_block(self, block: Any, x: str, name: str) -> str:
        if isinstance(block, blocks.Bottleneck):
            y = self.fold_branch(block, x, name)
            return self.add(Add(f"{name}/add", (x, y)), self.channels[y]) if block.shortcut else y
        if isinstance(block, blocks.ShuffleUnit):
            if block.first is None:
                half = self.channels[x] // 2
                first = self.add(SliceChannels(f"{name}/left", (x,), 0, half), half)
                x = self.add(SliceChannels(f"{name}/right", (x,), half, half), half)
            else:
                first = self.fold_branch(block.first, x, f"{name}/first")
            second = self.fold_branch(block.second, x, f"{name}/second")
            layer = InterleaveChannels(f"{name}/interleave", (first, second))
            return self.add(layer, 2 * self.channels[second])
        raise ExportError(f"export does not know the block {_describe(block)}; teach it to ffem_jax/export/fold.py")

    def fold_branch(self, branch: blocks.Branch, x: str, name: str) -> str:
        y = x if branch.expand is None else self.fold_pointwise(branch.expand, x, f"{name}/expand")
        y = self.fold_depthwise(branch.depthwise, y, f"{name}/depthwise")
        attended = f"{name}/attention"
        if branch.attention is not None and branch.position == "depthwise":
            y = self.fold_attention(branch.attention, y, attended)
        y = self.fold_pointwise(branch.project, y, f"{name}/project")
        if branch.attention is not None and branch.position == "projection":
            y = self.fold_attention(branch.attention, y, attended)
        return y

    def fold_pointwise(self, layer: blocks.Pointwise, x: str, name: str) -> str:
        kernel, bias = _fold_norm(layer.conv.kernel[...], layer.norm)
        activation, slope = _name_activation(layer.activation)
        return self.add(Convolution(name, (x,), kernel[None, None], bias, 1, 0, activation, slope), len(bias))

    def fold_depthwise(self, layer: blocks.Depthwise, x: str, name: str) -> str:
        kernel, bias = _fold_norm(layer.kernel[:, :, 0], layer.norm)
        activation, slope = _name_activation(layer.activation)
        return self.add(Depthwise(name, (x,), kernel, bias, layer.stride, 1, activation, slope), len(bias))

    def fold_attention(self, layer: Any, x: str, name: str) -> str:
        channels = self.channels[x]
        means = self.add(GlobalAveragePool(f"{name}/mean", (x,)), channels)
        if isinstance(layer, attention.EfficientChannelAttention):
            kernel = _to_float32(layer.conv.kernel[...]).reshape(-1)
            gate = self.add(ChannelConvolution(f"{name}/gate", (means,), kernel), channels)
        elif isinstance(layer, attention.SqueezeExcitation):
            hidden = self.fold_dense(layer.reduce, means, f"{name}/reduce", "relu")
            gate = self.fold_dense(layer.expand, hidden, f"{name}/gate", "sigmoid")
        else:
            raise ExportError(f"export does not know {_describe(layer)}; teach it to ffem_jax/export/fold.py")
        y = self.add(Multiply(f"{name}/scale", (x, gate)), channels)
        if layer.fusion == "residual":
            return self.add(Add(f"{name}/add", (x, y)), channels)
        if layer.fusion == "scale":
            return y
        raise ExportError(f"export does not know attention.fusion={layer.fusion}; it knows scale and residual")

    def fold_dense(self, layer: nnx.Linear, x: str, name: str, activation: str = "linear") -> str:
        kernel = _to_float32(layer.kernel[...])[None, None]
        bias = np.zeros(kernel.shape[-1], np.float32) if layer.bias is None else _to_float32(layer.bias[...])
        return self.add(Convolution(name, (x,), kernel, bias, activation=activation), len(bias))

    def fold_head(self, head: blocks.Head, x: str) -> None:
        if head.conv is not None:
            x = self.fold_pointwise(head.conv, x, "head")
        if head.pool is None:
            x = self.add(GlobalAveragePool("head/pool", (x,)), self.channels[x])
        elif isinstance(head.pool, blocks.GlobalDepthwise):
            kernel, bias = _fold_norm(head.pool.kernel[:, :, 0], head.pool.norm)
            x = self.add(Depthwise("head/pool", (x,), kernel, bias), len(bias))
        else:
            raise ExportError(f"export does not know the pooling {_describe(head.pool)}")
        if head.norm is None:
            x = self.fold_dense(head.embedding, x, "head/embedding")
        else:
            kernel, bias = _fold_norm(head.embedding.kernel[...], head.norm)
            x = self.add(Convolution("head/embedding", (x,), kernel[None, None], bias), len(bias))
        self.add(Flatten(OUTPUT_NAME, (x,)), self.channels[x])


def _fold_norm(kernel: Any, norm: nnx.BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [..., out] and bias [out] of what `norm` makes of a convolution with `kernel` and no bias."""
    assert norm.scale is not None
    assert norm.bias is not None
    mean, variance, scale, bias = (
        np.asarray(values[...], np.float64) for values in (norm.mean, norm.var, norm.scale, norm.bias)
    )
    gain = scale / np.sqrt(variance + norm.epsilon)
    return _to_float32(np.asarray(kernel, np.float64) * gain), _to_float32(bias - mean * gain)


def _to_float32(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


def _name_activation(activation: Any) -> tuple[str, np.ndarray | None]:
    """The name of an activation, and the slopes that it has of its own."""
    if isinstance(activation, normalization.PReLU):
        return "prelu", _to_float32(activation.slope[...])
    if activation not in _ACTIVATION_NAMES:
        raise ExportError(f"export does not know the activation {_describe(activation)}")
    return _ACTIVATION_NAMES[activation], None


def _describe(part: Any) -> str:
    return getattr(part, "__name__", type(part).__name__)
