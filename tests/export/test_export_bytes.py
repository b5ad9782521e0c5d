"""The cost model's bytes against the files that are written."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from made_networks import shrink

from ffem_jax.arch import ATTENTION_KINDS, ArchSpec
from ffem_jax.cost import compute_cost
from ffem_jax.export import tfjs
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import Convolution, Depthwise, LayerList
from ffem_jax.models import PRESETS, build_model

PRECISIONS = {"float32": "bytes_float32", "float16": "bytes_float16", "uint8": "bytes_int8"}


def make_drawn(arch: ArchSpec, resolution: int):
    """The layers of a network of drawn weights: as many bytes as a trained one's, and nothing is compiled."""
    model = nnx.eval_shape(lambda: build_model(arch, resolution, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    generator = np.random.default_rng(0)
    # Positive, since variances are among them; kernels then reach to both sides of 0 as trained ones do.
    drawn = jax.tree.map(lambda leaf: generator.uniform(0.1, 1, leaf.shape).astype(np.float32), state)
    network = fold_network(nnx.merge(graph, drawn), resolution)
    moved = [
        dataclasses.replace(layer, kernel=layer.kernel - 0.3) if isinstance(layer, Convolution | Depthwise) else layer
        for layer in network.layers
    ]
    return LayerList(resolution, tuple(moved))


def check(arch: ArchSpec, resolution: int, folder) -> None:
    network, cost = make_drawn(arch, resolution), compute_cost(arch, resolution)
    for dtype, name in PRECISIONS.items():
        size = sum(path.stat().st_size for path in tfjs.write(network, dtype, folder))
        assert getattr(cost, name) == pytest.approx(size, rel=0.01), (dtype, getattr(cost, name) - size)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_bytes_of_a_preset_agree_with_its_files_within_1_percent(preset, tmp_path):
    check(PRESETS[preset], 96, tmp_path)


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
@pytest.mark.parametrize("preset", ["ffem", "shufflenetv2_0_5", "mobilefacenet"])
@pytest.mark.parametrize("width", [0.5, 0.25])
def test_and_so_do_those_of_small_networks_full_of_attention(preset, kind, width, tmp_path):
    """Where the topology weighs most: a network of 0.2 MB with attention in every block."""
    arch = shrink(PRESETS[preset], kind, width_multiplier=width, depth_multiplier=1.0, head_channels=256)
    check(dataclasses.replace(arch, embedding_dim=64), 64, tmp_path)
