"""MobileNetV2 and ShuffleNetV2 give what torchvision's give with the same weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from ffem_jax.config.presets import PRESETS
from ffem_jax.models import build_model
from ffem_jax.models.blocks import Bottleneck
from ffem_jax.models.convolutions import list_forms, use_convolution_form

# Preset -> torchvision's name.
PEERS = {
    "mobilenetv2": "mobilenet_v2",
    "shufflenetv2_0_5": "shufflenet_v2_x0_5",
    "shufflenetv2": "shufflenet_v2_x1_0",
    "shufflenetv2_1_5": "shufflenet_v2_x1_5",
}
CLASSES = 1000


@pytest.fixture(scope="module")
def torch() -> Any:
    try:
        import torch
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another PyTorch
        pytest.skip(f"torchvision is not to be had ({error}); pip install -c constraints.txt -e '.[bench]'")
    return torch


def make_peer(torch: Any, name: str, images: Any) -> Any:
    """torchvision's network with weights drawn anew; BatchNorm's scale, bias, mean and variance far from 1 and 0."""
    import torchvision

    torch.manual_seed(0)
    peer = getattr(torchvision.models, PEERS[name])(weights=None, num_classes=CLASSES)
    norms = [module for module in peer.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0.0, 0.2)
            norm.momentum = 1.0
        # Statistics near those of the data, so that values neither vanish nor grow on the way, and off by chance.
        peer.train()(images)
        for norm in norms:
            norm.running_mean += 0.2 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return peer.eval()


def list_layers(network: Any) -> list[Any]:
    """Our convolutions with a BatchNorm, in the order in which torchvision makes its own."""
    layers = [network.stem]
    for block in network.blocks:
        for branch in [block] if isinstance(block, Bottleneck) else [block.first, block.second]:
            if branch is not None:
                layers += [branch.expand, branch.depthwise, branch.project]
    return [layer for layer in (*layers, network.head.conv) if layer is not None]


def copy_weights(torch: Any, peer: Any, network: Any) -> None:
    kernels = [module.weight for module in peer.modules() if isinstance(module, torch.nn.Conv2d)]
    norms = [module for module in peer.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for layer, kernel, norm in zip(list_layers(network), kernels, norms, strict=True):
        # [out, in, row, column] -> [row, column, in, out]; a 1x1 convolution is a matrix here.
        put(layer.conv.kernel if hasattr(layer, "conv") else layer.kernel, kernel.permute(2, 3, 1, 0).squeeze((0, 1)))
        for target, source in (
            (layer.norm.scale, norm.weight),
            (layer.norm.bias, norm.bias),
            (layer.norm.mean, norm.running_mean),
            (layer.norm.var, norm.running_var),
        ):
            put(target, source)
    dense = [module for module in peer.modules() if isinstance(module, torch.nn.Linear)][-1]
    put(network.head.embedding.kernel, dense.weight.T)
    put(network.head.embedding.bias, dense.bias)


def put(target: Any, source: Any) -> None:
    array = source.detach().numpy()
    assert target.shape == array.shape
    target[...] = array.copy()


@pytest.mark.slow
@pytest.mark.parametrize("form", list_forms())
@pytest.mark.parametrize("resolution", [96, 224])
@pytest.mark.parametrize("name", PEERS)
def test_outputs_are_torchvision_s(torch: Any, name: str, resolution: int, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, resolution, resolution, 3)).astype(np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    peer = make_peer(torch, name, images)
    network = build_model(dataclasses.replace(PRESETS[name], embedding_dim=CLASSES), resolution, rngs=nnx.Rngs(0))
    copy_weights(torch, peer, network)
    network.eval()
    graph, state = nnx.split(network)
    with use_convolution_form(form):
        found = jax.jit(lambda state, pixels: nnx.merge(graph, state)(pixels))(state, pixels)
    with torch.no_grad():
        wanted = peer(images).numpy()
    assert np.ptp(wanted, axis=0).max() > 0.05  # the images differ by far more than the tolerance
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
