"""The same network in PyTorch, as its users write it: nn.Conv2d, nn.BatchNorm2d, channels_last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ffem_jax.specs.architecture import BlockSpec, NetworkSpec


def _make_activation(name: str, channels: int) -> nn.Module:
    makers: dict[str, Callable[[], nn.Module]] = {
        "relu6": nn.ReLU6,
        "hard_swish": nn.Hardswish,
        "prelu": lambda: nn.PReLU(channels),
        "linear": nn.Identity,
    }
    return makers[name]()


class Convolution(nn.Sequential):
    """Convolution, BatchNorm, activation."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, groups: int, activation: str):
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1),
            _make_activation(activation, outputs),
        )


class EfficientChannelAttention(nn.Module):
    """ECA as its authors wrote it: pooling, a 1-D convolution over the channels, sigmoid."""

    def __init__(self, size: int):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.conv(x.mean((2, 3))[:, None])[:, 0]
        return x * torch.sigmoid(gate)[:, :, None, None]


class SqueezeExcitation(nn.Module):
    """SE: pooling, two dense layers, sigmoid."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.reduce, self.expand = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.expand(torch.relu(self.reduce(x.mean((2, 3)))))
        return x * torch.sigmoid(gate)[:, :, None, None]


class Bottleneck(nn.Module):
    """Inverted residual; attention after the depthwise convolution or after the projection."""

    def __init__(self, spec: BlockSpec):
        super().__init__()
        inputs, hidden, outputs = spec.in_channels, spec.hidden_channels, spec.out_channels
        expand = hidden != inputs
        self.expand = Convolution(inputs, hidden, 1, 1, 1, spec.activation) if expand else nn.Identity()
        self.depthwise = Convolution(hidden, hidden, 3, spec.stride, hidden, spec.activation)
        self.project = Convolution(hidden, outputs, 1, 1, 1, "linear")
        self.shortcut = spec.stride == 1 and inputs == outputs
        kind, self.position, fusion, size = spec.attention or ("", "", "", 0)
        if fusion not in ("", "scale"):
            raise ValueError(f"fusion {fusion!r} has no peer; choose one of: scale")
        attended = hidden if self.position == "depthwise" else outputs
        self.attention: nn.Module = nn.Identity()
        if kind:
            self.attention = EfficientChannelAttention(size) if kind == "eca" else SqueezeExcitation(attended, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        if self.position == "depthwise":
            y = self.attention(y)
        y = self.project(y)
        if self.position == "projection":
            y = self.attention(y)
        return x + y if self.shortcut else y


class FaceClassifier(nn.Module):
    """Pixels [N, 3, R, R] in -1 to 1 -> embeddings [N, embedding_dim], logits [N, people]."""

    def __init__(self, network: NetworkSpec, resolution: int, people: int):
        super().__init__()
        if network.pooling != "average":
            raise ValueError(f"pooling {network.pooling!r} has no peer; choose one of: average")
        if (
            network.stem_extra != "none"
            or network.embedding_norm
            or {block.kind for block in network.blocks} != {"bottleneck"}
        ):
            raise ValueError("a network of shuffle units or with stem_extra or embedding_norm has no peer")
        self.stem = Convolution(3, network.stem_channels, 3, network.stem_stride, 1, network.activation)
        self.blocks = nn.Sequential(*(Bottleneck(block) for block in network.blocks))
        last = network.blocks[-1].out_channels
        head = network.head_channels
        self.head = Convolution(last, head, 1, 1, 1, network.activation) if head else nn.Identity()
        self.embedding = nn.Linear(head or last, network.embedding_dim)
        self.classifier = nn.Linear(network.embedding_dim, people)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels -> embeddings [N, embedding_dim]."""
        return self.embedding(self.head(self.blocks(self.stem(x))).mean((2, 3)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = self.embed(x)
        return embeddings, self.classifier(embeddings)


class Embedder(nn.Module):
    """What is deployed: bytes [N, R, R, 3] -> embeddings [N, embedding_dim]."""

    def __init__(self, classifier: FaceClassifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier.embed(normalize_pixels(images))


def normalize_pixels(images: torch.Tensor) -> torch.Tensor:
    """Bytes [N, R, R, 3] -> float32 [N, 3, R, R] in -1 to 1, channels_last."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def copy_weights(classifier: Any, peer: FaceClassifier) -> None:
    """Write the weights of an `ffem_jax.training.classifier.FaceClassifier` with a plain softmax into its peer."""

    def put(parameter: torch.Tensor, value: Any, *axes: int) -> None:
        array = np.asarray(value[...], np.float32)
        array = array.transpose(axes) if axes else array
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(array.reshape(tuple(parameter.shape)).copy()))

    def put_convolution(source: Any, target: Any, kernel: Any, *axes: int) -> None:
        put(target[0].weight, kernel, *axes)
        put(target[1].weight, source.norm.scale)
        put(target[1].bias, source.norm.bias)
        put(target[1].running_mean, source.norm.mean)
        put(target[1].running_var, source.norm.var)
        if isinstance(target[2], nn.PReLU):
            put(target[2].weight, source.activation.slope)

    def put_dense(source: Any, target: Any) -> None:
        put(target.weight, source.kernel, 1, 0)
        put(target.bias, source.bias)

    network = classifier.network
    put_convolution(network.stem, peer.stem, network.stem.kernel, 3, 2, 0, 1)
    for source, target in zip(network.blocks, peer.blocks, strict=True):
        if source.expand is not None:
            put_convolution(source.expand, target.expand, source.expand.conv.kernel, 1, 0)
        put_convolution(source.depthwise, target.depthwise, source.depthwise.kernel, 3, 2, 0, 1)
        put_convolution(source.project, target.project, source.project.conv.kernel, 1, 0)
        if isinstance(target.attention, EfficientChannelAttention):
            put(target.attention.conv.weight, source.attention.conv.kernel, 2, 1, 0)
        elif isinstance(target.attention, SqueezeExcitation):
            put_dense(source.attention.reduce, target.attention.reduce)
            put_dense(source.attention.expand, target.attention.expand)
    if network.head.conv is not None:
        put_convolution(network.head.conv, peer.head, network.head.conv.conv.kernel, 1, 0)
    put_dense(network.head.embedding, peer.embedding)
    put_dense(classifier.classifier, peer.classifier)
