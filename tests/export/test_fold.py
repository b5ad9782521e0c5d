"""The list of layers against the network it was folded from, and the model's name."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from made_networks import (
    APART,
    CLOSE,
    FAST,
    VARIATIONS,
    compute_cosines,
    draw_model,
    embed,
    make_network,
    make_pixels,
    shrink,
)

from ffem_jax.config.presets import PRESETS
from ffem_jax.export import ExportError
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import OUTPUT_NAME, Convolution, Depthwise, Layer, LayerList, compute_model_id
from ffem_jax.export.reference import run_layers
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.specs.architecture import ArchSpec
from ffem_jax.specs.attention import ATTENTIONS
from ffem_jax.training.program import UNOPTIMIZED

PRESET_KINDS = [
    pytest.param(preset, kind, marks=[] if (preset, kind) in FAST else pytest.mark.slow)
    for preset in PRESETS
    for kind in ATTENTIONS.names
]


def check(arch: ArchSpec, resolution: int) -> None:
    graph, state = nnx.split(draw_model(arch, resolution))
    pixels = make_pixels(resolution)
    with use_convolution_form("xla"):
        compute = jax.jit(lambda state, x: nnx.merge(graph, state)((x + 1) * 127.5), compiler_options=UNOPTIMIZED)
        expected = compute(state, pixels)
    found = embed(arch, resolution)[: len(pixels)]
    np.testing.assert_allclose(found, expected, atol=CLOSE * np.abs(expected).max())


@pytest.mark.parametrize(("preset", "kind"), PRESET_KINDS)
def test_the_layers_compute_what_the_network_does(preset, kind):
    check(shrink(PRESETS[preset], kind), 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIATIONS)
def test_and_so_for_what_no_preset_has(name):
    changes, resolution = VARIATIONS[name]
    check(shrink(ArchSpec(), **changes), resolution)


@pytest.mark.parametrize(("preset", "kind"), sorted(FAST))
def test_the_networks_tested_with_tell_images_and_colours_apart(preset, kind):
    """Else a file with a layer missing would agree with them."""
    embeddings, swapped = np.split(embed(shrink(PRESETS[preset], kind)), 2)
    others = [compute_cosines(embeddings, np.roll(embeddings, places, axis=0)) for places in range(1, len(embeddings))]
    assert np.max(others) < APART
    assert abs(np.mean(others)) < 0.3, "they lie in one direction"
    assert compute_cosines(embeddings, swapped).max() < APART


def test_the_shapes_are_those_that_are_computed():
    network = make_network(shrink(PRESETS["shufflenetv2"], "eca", head_channels=0), 37)
    found = run_layers(network, make_pixels(37))
    shapes = network.compute_shapes()
    assert found.pop(OUTPUT_NAME).shape == (8, network.embedding_dim)
    assert {name: tensor.shape[1:] for name, tensor in found.items()} == {
        name: shape for name, shape in shapes.items() if name != OUTPUT_NAME
    }


def test_a_folded_network_has_no_norm_left_and_every_weight():
    model = draw_model(shrink(PRESETS["ffem_am"], "eca"))
    network = fold_network(model, 32)
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    norms = [node.num_features for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchNorm)]
    # A norm's scale and bias become one bias.
    assert sum(values.size for _, _, values in network.iterate_weights()) == sum(sizes) - sum(norms)


def test_what_is_not_known_is_refused_by_name():
    model = draw_model(shrink(ArchSpec()))

    class Whirl(nnx.Module):
        pass

    block = model.blocks[1]
    model.blocks[1] = Whirl()
    with pytest.raises(ExportError, match=r"does not know Whirl \(block1\); give it a method fold"):
        fold_network(model, 32)
    model.blocks[1] = block
    block.attention, block.position = nnx.data(Whirl()), "depthwise"
    with pytest.raises(ExportError, match="Whirl"):
        fold_network(model, 32)
    block.attention = None
    block.depthwise.activation = nnx.gelu
    with pytest.raises(ExportError, match="activation gelu"):
        fold_network(model, 32)


def test_a_kind_of_layer_that_is_not_known_is_refused():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Warp(Layer):
        pass

    network = LayerList(32, (Warp("warp", ("pixels",)),))
    with pytest.raises(ExportError, match=r"kind Warp \(warp\)"):
        network.compute_shapes()


def test_the_model_id_is_of_weights_and_layers_and_of_nothing_else():
    network = make_network(shrink(PRESETS["ffem_am"], "eca"))
    model_id = compute_model_id(network)
    assert len(model_id) == 16
    assert int(model_id, 16) >= 0
    again = fold_network(draw_model(shrink(PRESETS["ffem_am"], "eca")), 32)
    assert compute_model_id(again) == model_id

    def change(index: int, **changes) -> str:
        layers = list(network.layers)
        layers[index] = dataclasses.replace(layers[index], **changes)
        return compute_model_id(LayerList(network.resolution, tuple(layers)))

    stem = network.layers[0]
    assert isinstance(stem, Convolution)
    moved = stem.bias.copy()
    moved[0] = np.nextafter(moved[0], np.float32(np.inf))
    changed = {
        model_id,
        change(0, bias=moved),
        change(0, activation="relu"),
        change(0, stride=1),
        compute_model_id(LayerList(33, network.layers)),
    }
    assert len(changed) == 5
    assert change(0, bias=stem.bias.copy()) == model_id


def test_the_model_id_of_a_network_worked_by_hand_stays_what_it_is():
    """Galleries on servers are named by it: a change here makes every enrolled vector worthless."""
    stem = Convolution("stem", ("pixels",), np.ones((3, 3, 3, 2), np.float32), np.zeros(2, np.float32), 2, 1, "relu6")
    depthwise = Depthwise("next", ("stem",), np.full((3, 3, 2), 0.5, np.float32), np.ones(2, np.float32), 1, 1)
    assert compute_model_id(LayerList(16, (stem, depthwise))) == "5e2679bb55d0a997"
