"""Compiled a block at a time a network trains as compiled whole, and shares its blocks with the next."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ffem_jax import links
from ffem_jax.arch import ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.chain import compile_chain
from ffem_jax.classifier import PeopleClassifier, compute_loss
from ffem_jax.data.augment import augment_images
from ffem_jax.devices import make_batch_mesh
from ffem_jax.links import compile_link
from ffem_jax.program import _NO_SCHEDULE, BATCH_AXIS, EpochSums, compile_program
from ffem_jax.recipes import Schedule, compute_clip_factor, compute_schedule, make_optimizer
from ffem_jax.spec import LOSSES, OPTIMIZERS, RecipeSpec

STAGES = (StageSpec(1, 8, 1, 1), StageSpec(2, 8, 1, 2), StageSpec(2, 16, 2, 2))
ARCH = ArchSpec(stem_channels=8, stages=STAGES, head_channels=0, embedding_dim=8)
PEOPLE, BATCH, SIDE, IMAGES = 5, 8, 16, 40

PLAIN = RecipeSpec(epochs=1, batch_size=BATCH, clip_norm=0.1)
CASES = {
    "eca, clipped": (dataclasses.replace(ARCH, attention=AttentionSpec(kind="eca", placement="all")), PLAIN, 1),
    "shuffle units, a margin, an average, two seeds": (
        dataclasses.replace(
            ARCH,
            block="shuffle",
            pooling="global_depthwise",
            activation="prelu",
            attention=AttentionSpec(kind="se", placement="last"),
        ),
        dataclasses.replace(PLAIN, loss="arcface", margin=0.2, weight_averaging=0.9, flip_test=True, clip_norm=0.0),
        2,
    ),
}


def make_both(arch, recipe, seeds, monkeypatch):
    """The chain and the program of one network on one core."""
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    mesh = make_batch_mesh(BATCH_AXIS, BATCH)
    shapes = seeds, (IMAGES, SIDE, SIDE, 3), PEOPLE, 16
    network = resolve_network(arch)
    chain = compile_chain(network, recipe, NamedSharding(mesh, PartitionSpec()), *shapes)
    return chain, compile_program(network, recipe, mesh, *shapes)


def make_faces(seeds):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (IMAGES, SIDE, SIDE, 3)).astype(np.uint8)
    keys = jax.numpy.stack([jax.random.key(seed) for seed in range(seeds)])
    labels = np.arange(IMAGES, dtype=np.int32) % PEOPLE
    return jax.device_put((keys if seeds > 1 else keys[0], images, labels, np.arange(IMAGES, dtype=np.int32)))


def assert_close(left, right, **tolerance):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for (path, a), b in zip(jax.tree.leaves_with_path(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, err_msg=jax.tree_util.keystr(path), **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_the_whole_program_does(case, monkeypatch):
    arch, recipe, seeds = CASES[case]
    key, images, labels, pool = make_faces(seeds)
    schedule = Schedule(*(values[0] for values in compute_schedule(recipe, IMAGES // BATCH)))
    found = []
    for program in make_both(arch, recipe, seeds, monkeypatch):
        state = fresh = program.init(key)
        shaped = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), fresh)
        assert shaped == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), program.abstract_state)
        each = (seeds,) if seeds > 1 else ()
        sums = EpochSums(np.zeros(each, np.float32), np.zeros(each, np.int32), np.full(each, -1, np.int32))
        fresh = jax.device_get(fresh)
        for first, last in ((0, 2), (2, 4)):  # two calls: what lies between them is lost nowhere
            state, sums = program.train_steps(state, sums, key, images, labels, pool, IMAGES, schedule, 0, first, last)
        found.append(
            (fresh, jax.device_get((state, sums, program.embed(state, images, np.arange(16, dtype=np.int32)))))
        )
    (fresh, chained), (wanted, whole) = found
    assert_close(fresh, wanted, rtol=1e-6)
    assert_close(chained, whole, rtol=2e-3, atol=2e-4)


def test_the_state_goes_to_the_links_and_comes_back_as_it_was(monkeypatch):
    """And a network that shares blocks with another shares what is compiled of them."""
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    whole = NamedSharding(make_batch_mesh(BATCH_AXIS, BATCH), PartitionSpec())
    recipe = dataclasses.replace(PLAIN, weight_averaging=0.9)
    small = dataclasses.replace(ARCH, stages=STAGES[:2])

    def build(arch):
        return compile_chain(resolve_network(arch), recipe, whole, 1, (IMAGES, SIDE, SIDE, 3), PEOPLE, 16)

    chain = build(small)
    random = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: random.random(leaf.shape).astype(leaf.dtype), chain.abstract_state)
    assert_close(chain._split(chain._join(state)), state, rtol=0)
    links = chain._join(state)
    assert [link.params.shape for link in links] == [(link.lengths[0],) for link in chain.links]

    before = compile_link.cache_info()
    another = build(dataclasses.replace(small, stages=(*STAGES[:2], StageSpec(2, 8, 1, 1)), embedding_dim=8))
    after = compile_link.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (3, 1)
    assert [link in another.links for link in chain.links] == [True, True, True]


@dataclasses.dataclass(frozen=True)
class Weighted(RecipeSpec):
    """A recipe whose loss has a setting that nobody has heard of."""

    weight: float = 1.0


def test_a_new_setting_of_a_loss_reaches_the_blocks(monkeypatch):
    """What is compiled a block at a time is given the whole recipe, not the settings of a list."""

    def weigh(logits, labels, margin, recipe):
        return recipe.weight * compute_loss(logits, labels, margin, recipe)

    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    monkeypatch.setattr(links, "compute_loss", weigh)
    whole = NamedSharding(make_batch_mesh(BATCH_AXIS, BATCH), PartitionSpec())
    network = resolve_network(dataclasses.replace(ARCH, stages=STAGES[:1]))
    key, images, labels, pool = make_faces(1)
    losses = []
    for weight in (1.0, 3.0):
        recipe = Weighted(epochs=1, batch_size=BATCH, weight=weight)
        chain = compile_chain(network, recipe, whole, 1, (IMAGES, SIDE, SIDE, 3), PEOPLE, 16)
        schedule = Schedule(*(values[0] for values in compute_schedule(recipe, IMAGES // BATCH)))
        sums = jax.device_put(EpochSums(np.float32(0), np.int32(0), np.int32(-1)))
        state = chain.init(key)
        _, sums = chain.train_steps(state, sums, key, images, labels, pool, IMAGES, schedule, 0, 0, 1)
        losses.append(float(sums.loss))
    assert losses[1] == pytest.approx(3 * losses[0])


class Guarded:
    """A recipe without what a program is not compiled for: reading it raises."""

    def __init__(self, recipe):
        self.recipe = recipe

    def __getattr__(self, name):
        assert name not in _NO_SCHEDULE, f"recipe.{name} is dropped before anything is compiled, and was read"
        return getattr(self.recipe, name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_compiled_reads_nothing_that_was_dropped_from_the_recipe(loss, optimizer):
    full = {"crop_padding": 0.1, "brightness": 0.1, "contrast": 0.1, "erase": 0.1, "rotation": 5.0, "zoom": 0.1}
    recipe = Guarded(RecipeSpec(loss=loss, optimizer=optimizer, clip_norm=1.0, **full))
    labels = np.arange(4, dtype=np.int32)
    logits = PeopleClassifier(8, 4, recipe, rngs=nnx.Rngs(0))(np.ones((4, 8), np.float32))
    assert np.isfinite(compute_loss(logits, labels, np.float32(0.1), recipe))
    make_optimizer(recipe).init({"kernel": np.ones((2, 2))})
    links.make_vector_optimizer(recipe, np.ones(4)).init(np.ones(4))
    assert compute_clip_factor(recipe, np.float32(4.0)) == 0.5
    images = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    assert augment_images(jax.random.key(0), images, recipe, 4).shape == images.shape
    with pytest.raises(AssertionError, match="recipe.margin is dropped"):
        recipe.margin  # noqa: B018
