"""The compiled parts of training one network: start, steps of an epoch, embeddings.

Nothing random is carried from step to step: each step's draws follow from (seed, epoch, step), so a trial that
goes on from a checkpoint makes the very steps that it would have made.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled, Wrapped

from ffem_jax.arch import NetworkSpec
from ffem_jax.classifier import FaceClassifier, compute_loss
from ffem_jax.data.augment import augment_images
from ffem_jax.devices import release_memory
from ffem_jax.models.convolutions import get_convolution_form
from ffem_jax.models.draws import build_at_once, plan_draws
from ffem_jax.models.vectors import cut, join
from ffem_jax.recipes import Schedule, make_optimizer
from ffem_jax.spec import RecipeSpec


class TrainState(NamedTuple):
    """All that an epoch changes. With several seeds each leaf has a leading axis [seed].

    average: the moving average of params and statistics, or () where the recipe has none.
    """

    params: Any
    statistics: Any
    optimizer: Any
    average: Any = ()

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The params and statistics that the trained network is: averaged where the recipe says so."""
        return self.average or (self.params, self.statistics)


class EpochSums(NamedTuple):
    """Sums over an epoch's steps so far: of batch losses, of images classified right; bad_step is the first step
    whose loss was not finite, or -1. With several seeds each has a leading axis [seed]."""

    loss: jax.Array
    correct: jax.Array
    bad_step: jax.Array

    def add(self, loss: jax.Array, correct: jax.Array, step: jax.Array) -> EpochSums:
        """These and one more step's."""
        bad_step = jnp.where((self.bad_step < 0) & ~jnp.isfinite(loss), step, self.bad_step)
        return EpochSums(self.loss + loss, self.correct + correct, bad_step)


# The mesh axis that a batch is split over: the cores of a CPU, each a device of its own (devices.py).
BATCH_AXIS = "batch"


@dataclass(frozen=True)
class Program:
    """Jitted functions for one key or, with several seeds, for an array of keys; every result then has an axis [seed].

    init(key) -> TrainState.
    train_steps(state, sums, key, images, labels, pool, train_count, schedule, epoch, first, last) -> state, sums:
        makes steps first to last of an epoch and adds them to `sums`. images uint8 [image, R, R, 3]; labels int32
        [image]; pool int32 [image], the training images' indices first; schedule float32 [step], the epoch's.
    embed(state, images, indices) -> embeddings [index, embedding_dim], logits [index, people], not augmented.
    """

    init: Wrapped
    train_steps: Wrapped
    embed: Wrapped


@dataclass(frozen=True)
class CompiledProgram:
    """A Program compiled for one set of shapes; abstract_state is the TrainState's shapes and where it lies."""

    init: Compiled
    train_steps: Compiled
    embed: Compiled
    abstract_state: TrainState


def compile_program(
    network: NetworkSpec,
    recipe: RecipeSpec,
    mesh: Mesh,
    seeds: int,
    image_shape: tuple[int, int, int, int],
    people: int,
    embed_batch: int,
) -> CompiledProgram:
    """The program for `image_shape` [image, R, R, 3] faces in all, `embed_batch` at a time embedded, compiled.

    Trials that differ in seed, fold or learning rate get one and the same program; this process keeps the last two.
    """
    return _compile_program(
        network, drop_schedule(recipe), mesh, seeds, image_shape, people, embed_batch, get_trace_context()
    )


def drop_schedule(recipe: RecipeSpec) -> RecipeSpec:
    """`recipe` without what is no part of a program, equal for all that share one."""
    # Whether weights are averaged is the program's; over how many steps is the schedule's.
    return dataclasses.replace(recipe, **_NO_SCHEDULE, weight_averaging=0.5 if recipe.weight_averaging else 0.0)


def get_trace_context() -> tuple[Any, ...]:
    """What a trace depends on besides its arguments: part of the key of what is compiled once."""
    return get_convolution_form(), jax.default_matmul_precision.value


def shuffle(key: jax.Array, pool: jax.Array, train_count: jax.Array, epoch: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The key of an epoch, and `pool` with its first train_count entries, the training images', in that epoch's order.

    pool is padded to one length for all folds.
    """
    epoch_key = jax.random.fold_in(key, epoch)
    draws = jax.random.uniform(epoch_key, pool.shape)
    return epoch_key, pool[jnp.argsort(jnp.where(jnp.arange(pool.size) < train_count, draws, 2.0))]


# Values of a schedule, which enter a program with the rates that they make.
_NO_SCHEDULE: dict[str, Any] = {
    "name": "",
    "epochs": 1,
    "learning_rate": 1.0,
    "schedule": "constant",
    "decay": 1.0,
    "warmup_fraction": 0.0,
    "margin": 0.0,
    "margin_warmup": 0.0,
    "margin_rise": 0.0,
}
# init runs once: it is compiled fast, and need not run fast.
UNOPTIMIZED: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}


# A program holds 0.3 GB: the last two are kept.
@lru_cache(maxsize=2)
def _compile_program(network, recipe, mesh, seeds, image_shape, people, embed_batch, context):
    # context is part of the cache's key; tracing reads it by itself.
    program = build_program(network, image_shape[1], people, recipe, mesh, seeds)
    whole = NamedSharding(mesh, PartitionSpec())

    def shaped(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    images, each = image_shape[0], (seeds,) if seeds > 1 else ()
    keys = shaped(each, jax.random.key(0).dtype)
    state = jax.tree.map(lambda leaf: shaped(leaf.shape, leaf.dtype), jax.eval_shape(program.init, keys))
    sums = EpochSums(shaped(each, jnp.float32), shaped(each, jnp.int32), shaped(each, jnp.int32))
    faces = shaped(image_shape, jnp.uint8), shaped((images,), jnp.int32), shaped((images,), jnp.int32)
    schedule = Schedule(*[jax.ShapeDtypeStruct((images // recipe.batch_size,), jnp.float32)] * len(Schedule._fields))
    steps = (state, sums, keys, *faces, 0, schedule, 0, 0, 0)
    embedded = (state, faces[0], jax.ShapeDtypeStruct((embed_batch,), jnp.int32))
    # One is traced, in Python, while another is compiled, outside it.
    with ThreadPoolExecutor() as threads:
        init = threads.submit(program.init.lower(keys).compile, UNOPTIMIZED)
        train_steps = threads.submit(program.train_steps.lower(*steps).compile)
        embed = threads.submit(program.embed.lower(*embedded).compile)
        compiled = CompiledProgram(init.result(), train_steps.result(), embed.result(), state)
    release_memory()
    return compiled


def _mark_kernels(params: Any) -> np.ndarray:
    """1 where kernels lie on the vector of `params`, else 0."""
    return np.concatenate([np.full(leaf.size, leaf.ndim > 1, np.uint8) for leaf in jax.tree.leaves(params)])


def build_program(
    network: NetworkSpec, resolution: int, people: int, recipe: RecipeSpec, mesh: Mesh, seeds: int = 1
) -> Program:
    """Write the training program of `network`; nothing is compiled before its first call.

    Each device of `mesh`, whose one axis is BATCH_AXIS, takes its share of every batch; BatchNorm's statistics and the
    gradient are those of the whole batch. The mesh's size divides the batch and the indices that embed is given.

    Counts, the schedule, epoch and step enter as values and the faces as whole arrays with index lists, so that folds,
    schedules and lengths share one compilation. The network's state is a pytree of plain arrays, merged into a
    module only where it is applied.
    """

    def build(rngs):
        return FaceClassifier(network, resolution, people, recipe, rngs=rngs)

    def split(model):
        parts: Any = nnx.split(model, nnx.Param, ...)
        return parts[0], nnx.as_pure(parts[1]), nnx.as_pure(parts[2])

    planned, draws = plan_draws(build)
    graph, *shapes = split(planned)
    optimizer = make_optimizer(recipe, _mark_kernels(shapes[0]))

    def init(key):
        _, params, statistics = split(build_at_once(build, key, draws))
        average = (params, statistics) if recipe.weight_averaging else ()
        return TrainState(params, statistics, optimizer.init(join(params)), average)

    def apply(params, statistics, pixels, *, train):
        model = nnx.merge(graph, params, statistics)
        model.train() if train else model.eval()
        model.set_attributes(nnx.BatchNorm, axis_name=BATCH_AXIS)
        embeddings, logits = model(pixels)
        return embeddings, logits, split(model)[2]

    share = recipe.batch_size // mesh.size

    # Within the loop all that the optimiser works on lies on one vector: by themselves, more than a hundred small
    # arrays would be most of what is compiled.
    def pack(state):
        average = tuple(map(join, state.average))
        return state._replace(params=join(state.params), average=average)

    def unpack(state):
        average = tuple(map(cut, state.average, shapes))
        return state._replace(params=cut(state.params, shapes[0]), average=average)

    def train_step(state, key, images, labels, schedule):
        pixels = augment_images(key, images, recipe, recipe.batch_size, lax.axis_index(BATCH_AXIS) * share)

        def judge(params):
            _, logits, statistics = apply(params, state.statistics, pixels, train=True)
            return compute_loss(logits, labels, schedule.margin, recipe), (logits, statistics)

        (loss, (logits, statistics)), grads = jax.value_and_grad(judge, has_aux=True)(cut(state.params, shapes[0]))
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels)
        loss, vector = lax.pmean((loss, join(grads)), BATCH_AXIS)
        direction, optimizer_state = optimizer.update(vector, state.optimizer, state.params)
        params = state.params - schedule.rate * direction
        average = state.average
        if recipe.weight_averaging:
            new = params, join(statistics)
            average = jax.tree.map(lambda a, new: a + schedule.averaging * (new - a), average, new)
        return TrainState(params, statistics, optimizer_state, average), loss, lax.psum(correct, BATCH_AXIS)

    def train_steps(state, sums, key, images, labels, pool, train_count, schedule, epoch, first, last):
        epoch_key, order = shuffle(key, pool, train_count, epoch)

        def body(step, carry):
            state, sums = carry
            first = step * recipe.batch_size + lax.axis_index(BATCH_AXIS) * share
            chosen = lax.dynamic_slice(order, (first,), (share,))
            step_key = jax.random.fold_in(epoch_key, step)
            now = jax.tree.map(lambda values: values[step], schedule)
            state, loss, correct = train_step(state, step_key, images[chosen], labels[chosen], now)
            return state, sums.add(loss, correct, step)

        # A loop with its bounds as values: one program for a whole epoch and for any part of it.
        state, sums = lax.fori_loop(first, last, body, (pack(state), sums))
        return unpack(state), sums

    def embed(state, images, indices):
        pixels, (params, statistics) = images[indices], state.evaluated
        embeddings, logits, _ = apply(params, statistics, pixels, train=False)
        if recipe.flip_test:
            mirrored, mirrored_logits, _ = apply(params, statistics, pixels[:, :, ::-1], train=False)
            embeddings, logits = (embeddings + mirrored) / 2, (logits + mirrored_logits) / 2
        return embeddings, logits

    whole, split_batch = PartitionSpec(), PartitionSpec(BATCH_AXIS)
    # check_vma would have every parameter's gradient summed by itself; pmean above sums them together.
    train_steps = jax.shard_map(train_steps, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    embed = jax.shard_map(
        embed, mesh=mesh, in_specs=(whole, whole, split_batch), out_specs=split_batch, check_vma=False
    )
    if seeds > 1:
        init = jax.vmap(init)
        train_steps = jax.vmap(train_steps, in_axes=(0, 0, 0, *[None] * 8))
        embed = jax.vmap(embed, in_axes=(0, None, None))
    return Program(jax.jit(init), jax.jit(train_steps, donate_argnums=0), jax.jit(embed))
