"""The same network in PyTorch, as its users write it: nn.Conv2d, nn.BatchNorm2d, channels_last."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.contest import PEOPLE, Call, Cell, make_faces, repeat
from benchmarks.contests import DECAY, MOMENTUM, RATE
from benchmarks.peers.layers import Layer, list_blocks, read_weights
from ffem_jax.specs.architecture import NetworkSpec


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


def make_layer(layer: Layer) -> nn.Module:
    """Return a layer of the table as a module."""
    if layer.kind == "eca":
        return EfficientChannelAttention(layer.size)
    if layer.kind == "se":
        return SqueezeExcitation(layer.inputs, layer.size)
    inputs, outputs, size = layer.inputs, layer.outputs, layer.size
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, layer.stride, size // 2, groups=layer.groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1),
        nn.ReLU6() if layer.active else nn.Identity(),
    )


class FaceClassifier(nn.Module):
    """Pixels [N, 3, R, R] in -1 to 1 -> embeddings [N, embedding_dim], logits [N, people]."""

    def __init__(self, network: NetworkSpec, resolution: int, people: int):
        super().__init__()
        blocks = list_blocks(network)
        self.layers = nn.ModuleDict({layer.name: make_layer(layer) for block in blocks for layer in block.layers})
        self.order = [([layer.name for layer in block.layers], block.shortcut) for block in blocks]
        self.embedding = nn.Linear(blocks[-1].layers[-1].outputs, network.embedding_dim)
        self.classifier = nn.Linear(network.embedding_dim, people)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels -> embeddings [N, embedding_dim]."""
        for names, shortcut in self.order:
            y = x
            for name in names:
                y = self.layers[name](y)
            x = x + y if shortcut else y
        return self.embedding(x.mean((2, 3)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = self.embed(x)
        return embeddings, self.classifier(embeddings)


class Embedder(FaceClassifier):
    """The deployed network: bytes [N, R, R, 3] -> embeddings [N, embedding_dim]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.embed(normalize_pixels(images))


def normalize_pixels(images: torch.Tensor) -> torch.Tensor:
    """Bytes [N, R, R, 3] -> float32 [N, 3, R, R] in -1 to 1, channels_last."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def copy_weights(classifier: Any, peer: FaceClassifier) -> None:
    """Write the weights of an `ffem_jax.training.classifier.FaceClassifier` with a plain softmax into its peer."""
    # Transpositions by rank: kernels [row, column, in, out], 1-D kernels, dense or pointwise ones, vectors.
    axes = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}
    for name, arrays in read_weights(classifier).items():
        layer = getattr(peer, name) if name in ("embedding", "classifier") else peer.layers[name]
        own = {key: value for key, value in layer.state_dict().items() if not key.endswith("num_batches_tracked")}
        for target, array in zip(own.values(), arrays, strict=True):
            array = array.transpose(axes[array.ndim]).reshape(tuple(target.shape))
            target.copy_(torch.tensor(array))


def train(cell: Cell, folder: Path, compiled: bool = False) -> Call:
    """Return calls of training steps on random faces, eager or with torch.compile on the network and its loss."""
    images, people = make_faces(cell.resolution)
    images, people = torch.from_numpy(images), torch.from_numpy(people).long()
    model = FaceClassifier(cell.spec, cell.resolution, PEOPLE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    order = torch.empty(0, dtype=torch.long)

    def compute_loss(images: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(normalize_pixels(images))[1], people)

    compute = torch.compile(compute_loss) if compiled else compute_loss

    def call(steps: int) -> None:
        nonlocal order
        for _ in range(steps):
            if len(order) < cell.batch:
                order = torch.randperm(len(images))
            chosen, order = order[: cell.batch], order[cell.batch :]
            optimizer.zero_grad()
            loss = compute(images[chosen], people[chosen])
            loss.backward()
            optimizer.step()
        loss.item()

    return call


def embed(cell: Cell, folder: Path, compiled: bool = False) -> Call:
    """Return calls of the deployed network in inference mode, eager or with torch.compile."""
    embedder = Embedder(cell.spec, cell.resolution, PEOPLE).to(memory_format=torch.channels_last).eval()
    embedder.load_state_dict(torch.load(folder / "torch.pt"))
    apply = torch.compile(embedder) if compiled else embedder

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return apply(torch.from_numpy(images)).numpy()

    return repeat(answer, cell)


def write_weights(classifier: Any, cell: Cell, folder: Path) -> None:
    """Write our weights for PyTorch, and the graph for ONNX Runtime: uint8 [batch, R, R, 3] to embeddings."""
    peer = Embedder(cell.spec, cell.resolution, PEOPLE).eval()
    copy_weights(classifier, peer)
    torch.save(peer.state_dict(), folder / "torch.pt")
    images = torch.zeros(cell.batch, cell.resolution, cell.resolution, 3, dtype=torch.uint8)
    names = {"input_names": ["images"], "output_names": ["embeddings"]}
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript; the older one warns that it is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(peer, (images,), folder / "network.onnx", dynamo=False, opset_version=17, **names)
