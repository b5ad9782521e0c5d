"""The cost model's bytes against the files that are written."""

import dataclasses

import pytest
from made_networks import draw_model, shrink

from ffem_jax.config.presets import PRESETS
from ffem_jax.cost.cost import compute_cost
from ffem_jax.export import tfjs
from ffem_jax.export.fold import fold_network
from ffem_jax.specs.architecture import ArchSpec
from ffem_jax.specs.attention import ATTENTIONS

PRECISIONS = {"float32": "bytes_float32", "float16": "bytes_float16", "uint8": "bytes_int8"}


def check(arch: ArchSpec, resolution: int, folder) -> None:
    network = fold_network(draw_model(arch, resolution, settled=False), resolution)
    cost = compute_cost(arch, resolution)
    for dtype, name in PRECISIONS.items():
        size = sum(path.stat().st_size for path in tfjs.write(network, dtype, folder))
        assert getattr(cost, name) == pytest.approx(size, rel=0.01), (dtype, getattr(cost, name) - size)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_bytes_of_a_preset_agree_with_its_files_within_1_percent(preset, tmp_path):
    check(PRESETS[preset], 96, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTENTIONS.names)
@pytest.mark.parametrize("preset", ["ffem", "shufflenetv2_0_5", "mobilefacenet"])
@pytest.mark.parametrize("width", [0.5, 0.25])
def test_and_so_do_those_of_small_networks_full_of_attention(preset, kind, width, tmp_path):
    """Where the topology weighs most: a network of 0.2 MB with attention in every block."""
    arch = shrink(PRESETS[preset], kind, width_multiplier=width, depth_multiplier=1.0, head_channels=256)
    check(dataclasses.replace(arch, embedding_dim=64), 64, tmp_path)
