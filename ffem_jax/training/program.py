"""The compiled program of one network: initialisation, the steps of an epoch, embeddings.

Counts, schedule, epoch and step are passed as values, and the faces as complete arrays with index lists. Folds,
schedules and lengths therefore share one compilation. `vmap` maps over seeds; `shard_map` splits a batch over devices.

Faces stay on the device as uint8 and are augmented there, so an epoch is one compiled loop without a round trip to the
host per step. The loop is a `fori_loop` because its bounds are values: the same program runs a whole epoch or, between
two updates of the progress bar, a second of it. Outside the loop the state is a tree of arrays, inside it one vector:
more than a hundred small arrays would dominate the compiled code. Faces that do not fit on the device arrive one batch
at a time (`feed`) and pass through the same step.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled, Wrapped

from ffem_jax.machine.devices import release_memory
from ffem_jax.models.convolutions import get_convolution_form
from ffem_jax.models.vectors import cut, join
from ffem_jax.specs.architecture import NetworkSpec
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.recipes import Schedule, make_optimizer
from ffem_jax.training.step import (
    BATCH_AXIS,
    EpochMetrics,
    PureClassifier,
    TrainingFaces,
    TrainState,
    make_train_step,
    shuffle_epoch,
)


@dataclass(frozen=True)
class Program:
    """Jitted functions for one key or, with several seeds, for an array of keys; every result then has an axis [seed].

    Args:
        init: (key) -> TrainState.
        train_steps: (state, metrics, key, faces, schedule, epoch, first, last) -> state, metrics. Runs steps first to
            last of an epoch and adds them to `metrics`; `schedule` is that epoch's, each field float32 [step].
        train_batch: (state, metrics, key, faces, schedule, epoch, step) -> state, metrics. Runs one step. `faces` holds
            only its batch (`feed.BatchFeed`), split over the devices; with several seeds each has its own batch.
        embed: (state, images, indices) -> embeddings [index, embedding_dim], logits [index, num_classes]; without
            augmentation.
        embed_batch: (state, images) -> the same for all images, which are split over the devices.
    """

    init: Wrapped
    train_steps: Wrapped
    train_batch: Wrapped
    embed: Wrapped
    embed_batch: Wrapped


@dataclass(frozen=True)
class CompiledProgram:
    """A Program compiled for one set of shapes; abstract_state holds the TrainState's shapes and shardings.

    train, embed: its train_steps and embed, or train_batch and embed_batch if images arrive one batch at a time.
    """

    init: Compiled
    train: Compiled
    embed: Compiled
    abstract_state: TrainState


def build_program(
    network: NetworkSpec,
    resolution: int,
    num_classes: int,
    recipe: RecipeSpec,
    mesh: Mesh,
    seeds: int = 1,
    teacher_features: int = 0,
) -> Program:
    """Return the training program of `network`; nothing is compiled before its first call.

    Each device of `mesh`, whose one axis is BATCH_AXIS, takes its share of every batch. Batch statistics and gradient
    are those of the whole batch. The size of the mesh must divide the batch and the number of indices passed to embed.
    """
    model = PureClassifier(network, resolution, num_classes, recipe, teacher_features)
    optimizer = make_optimizer(recipe, _mark_kernels(model.sampling.shapes))
    train_step = make_train_step(model, optimizer, recipe, recipe.batch_size // mesh.size)

    def init(key):
        params, statistics = model.init(key)
        average = (params, statistics) if recipe.weight_averaging else ()
        return TrainState(params, statistics, optimizer.init(join(params)), average)

    def train_steps(state, metrics, key, faces, schedule, epoch, first, last):
        epoch_key, order = shuffle_epoch(key, faces, epoch)

        def body(step, carry):
            return train_step(*carry, epoch_key, faces, order, schedule, step)

        # The bounds are values: one program serves a whole epoch and any part of it.
        state, metrics = lax.fori_loop(first, last, body, (_pack(state), metrics))
        return _unpack(state, model), metrics

    def train_batch(state, metrics, key, faces, schedule, epoch, step):
        # The step slices its share of the batch from an order: place this device's images at that position.
        first = step * recipe.batch_size + lax.axis_index(BATCH_AXIS) * (recipe.batch_size // mesh.size)
        order = jnp.arange(schedule.rate.size * recipe.batch_size) - first
        epoch_key = jax.random.fold_in(key, epoch)

        def body(step, carry):
            return train_step(*carry, epoch_key, faces, order, schedule, step)

        # A loop here too: outside a loop the compiled step rounds differently.
        state, metrics = lax.fori_loop(step, step + 1, body, (_pack(state), metrics))
        return _unpack(state, model), metrics

    def embed_pixels(state, pixels):
        params, statistics = state.evaluated
        embeddings, logits, _ = model.apply(params, statistics, pixels, train=False)
        if recipe.flip_test:
            mirrored, mirrored_logits, _ = model.apply(params, statistics, pixels[:, :, ::-1], train=False)
            embeddings, logits = (embeddings + mirrored) / 2, (logits + mirrored_logits) / 2
        return embeddings, logits

    whole, split_batch = PartitionSpec(), PartitionSpec(BATCH_AXIS)
    # check_vma would sum each parameter's gradient separately; the step's pmean reduces them together.
    train_steps = jax.shard_map(train_steps, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    batch_specs = TrainingFaces(split_batch, split_batch, whole, whole, split_batch, whole)
    fed_specs = whole, whole, whole, batch_specs, whole, whole, whole
    train_batch = jax.shard_map(train_batch, mesh=mesh, in_specs=fed_specs, out_specs=whole, check_vma=False)
    split: Any = {"mesh": mesh, "out_specs": split_batch, "check_vma": False}
    embed = jax.shard_map(
        lambda state, images, indices: embed_pixels(state, images[indices]),
        in_specs=(whole, whole, split_batch), **split,
    )  # fmt: skip
    embed_batch = jax.shard_map(embed_pixels, in_specs=(whole, split_batch), **split)
    if seeds > 1:
        init = jax.vmap(init)
        train_steps = jax.vmap(train_steps, in_axes=(0, 0, 0, *[None] * 5))
        own = TrainingFaces(0, 0, None, None, 0 if teacher_features else None, None)
        train_batch = jax.vmap(train_batch, in_axes=(0, 0, 0, own, *[None] * 3))
        embed = jax.vmap(embed, in_axes=(0, None, None))
        embed_batch = jax.vmap(embed_batch, in_axes=(0, None))
    # A process can read only its own devices, so with several processes each gets all embeddings.
    gathered: Any = {"out_shardings": NamedSharding(mesh, whole)} if mesh.is_multi_process else {}
    return Program(
        jax.jit(init),
        jax.jit(train_steps, donate_argnums=0),
        jax.jit(train_batch, donate_argnums=0),
        jax.jit(embed, **gathered),
        jax.jit(embed_batch, **gathered),
    )


def _mark_kernels(params: Any) -> np.ndarray:
    """Return 1 at the kernel entries of the vector of `params`, else 0."""
    return np.concatenate([np.full(leaf.size, leaf.ndim > 1, np.uint8) for leaf in jax.tree.leaves(params)])


def _pack(state: TrainState) -> TrainState:
    """Return `state` with its params and both parts of its average each joined into one vector."""
    return state._replace(params=join(state.params), average=tuple(map(join, state.average)))


def _unpack(state: TrainState, model: PureClassifier) -> TrainState:
    average = tuple(map(cut, state.average, (model.params, model.statistics)))
    return state._replace(params=cut(state.params, model.params), average=average)


# ---------------------------------------------------------------------------------- compiling

# Settings of the schedule: a program gets the resulting rates as values, so it does not depend on these.
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
# init runs once: it should compile fast and need not run fast.
UNOPTIMIZED: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}


def compile_program(
    network: NetworkSpec,
    recipe: RecipeSpec,
    mesh: Mesh,
    seeds: int,
    image_shape: tuple[int, int, int, int],
    num_classes: int,
    embed_batch: int,
    teacher_features: int = 0,
    fed: bool = False,
) -> CompiledProgram:
    """Return the compiled program for faces of `image_shape` [image, R, R, 3], embedded `embed_batch` at a time.

    fed: whether images arrive one batch at a time, for training and for embedding.
    Trials that differ only in seed, fold or learning rate share one program; this process keeps the last two programs.
    """
    context = get_trace_context()
    shapes = image_shape, num_classes, embed_batch, teacher_features, fed
    return _compile_program(network, drop_schedule(recipe), mesh, seeds, *shapes, context)


def drop_schedule(recipe: RecipeSpec) -> RecipeSpec:
    """Return `recipe` without the settings that a program does not depend on: equal for all that share one."""
    # Whether weights are averaged is part of the program; over how many steps is part of the schedule.
    return dataclasses.replace(recipe, **_NO_SCHEDULE, weight_averaging=0.5 if recipe.weight_averaging else 0.0)


def get_trace_context() -> tuple[Any, ...]:
    """Return what a trace depends on besides its arguments; part of the cache key of compiled programs."""
    return get_convolution_form(), jax.default_matmul_precision.value


def build_embed_batch(
    network: NetworkSpec,
    recipe: RecipeSpec,
    mesh: Mesh,
    seeds: int,
    resolution: int,
    num_classes: int,
    teacher_features: int = 0,
) -> Wrapped:
    """Return `Program.embed_batch` alone, for images outside the data set; compiled at its first call."""
    context = get_trace_context()
    return _build_embed_batch(
        network, drop_schedule(recipe), mesh, seeds, resolution, num_classes, teacher_features, context
    )


@lru_cache(maxsize=2)
def _build_embed_batch(network, recipe, mesh, seeds, resolution, num_classes, teacher_features, context):
    return build_program(network, resolution, num_classes, recipe, mesh, seeds, teacher_features).embed_batch


# A program takes 0.3 GB: the last two are kept.
@lru_cache(maxsize=2)
def _compile_program(
    network, recipe, mesh, seeds, image_shape, num_classes, embed_batch, teacher_features, fed, context
):
    # context is only part of the cache key; tracing reads the same values itself.
    program = build_program(network, image_shape[1], num_classes, recipe, mesh, seeds, teacher_features)
    whole = NamedSharding(mesh, PartitionSpec())

    def shaped(shape, dtype, sharding=whole):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def place(tree):
        return jax.tree.map(lambda leaf: shaped(leaf.shape, leaf.dtype), tree)

    images, each = image_shape[0], (seeds,) if seeds > 1 else ()
    keys = shaped(each, jax.random.key(0).dtype)
    state = place(jax.eval_shape(program.init, keys))
    metrics = place(jax.eval_shape(lambda: EpochMetrics.zero(each)))
    indices = shaped((images,), jnp.int32)
    taught = [shaped((count, teacher_features), jnp.float32) for count in (images, num_classes) if teacher_features]
    faces = TrainingFaces(shaped(image_shape, jnp.uint8), indices, indices, 0, *taught)
    schedule = Schedule(*[shaped((images // recipe.batch_size,), jnp.float32)] * len(Schedule._fields))
    train, span = program.train_steps, [0, 0, 0]
    seen: tuple[Any, ...]
    embed, seen = program.embed, (faces.images, shaped((embed_batch,), jnp.int32))
    if fed:
        batch, rows = (*each, recipe.batch_size), NamedSharding(mesh, PartitionSpec(*[None] * len(each), BATCH_AXIS))
        targets = (shaped((*batch, teacher_features), jnp.float32, rows), taught[1]) if taught else ()
        pixels = shaped((*batch, *image_shape[1:]), jnp.uint8, rows)
        faces = TrainingFaces(pixels, shaped(batch, jnp.int32, rows), shaped((0,), jnp.int32), 0, *targets)
        train, span, embed = program.train_batch, [0, 0], program.embed_batch
        seen = (shaped((embed_batch, *image_shape[1:]), jnp.uint8, NamedSharding(mesh, PartitionSpec(BATCH_AXIS))),)
    # Compilation releases the interpreter: one function is traced while another is compiled.
    with ThreadPoolExecutor() as threads:
        init = threads.submit(program.init.lower(keys).compile, UNOPTIMIZED)
        trained = threads.submit(train.lower(state, metrics, keys, faces, schedule, *span).compile)
        embedded = threads.submit(embed.lower(state, *seen).compile)
        compiled = CompiledProgram(init.result(), trained.result(), embedded.result(), state)
    release_memory()
    return compiled
