"""The parts of a network that are compiled by themselves, and what training does between them (chain.py).

Between calls a link's parameters and its statistics lie on a vector each: calls have few arguments, and the optimiser's
program depends on nothing but lengths. Everything compiled here is kept for the next network that has the same part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.flatten_util import ravel_pytree

from ffem_jax.arch import BlockSpec
from ffem_jax.classifier import PeopleClassifier, compute_loss
from ffem_jax.data.augment import augment_images
from ffem_jax.models import normalize_pixels
from ffem_jax.models.blocks import BLOCKS, Head, Stem
from ffem_jax.models.streaming import stream_block, stream_trunk
from ffem_jax.program import UNOPTIMIZED, EpochSums, TrainState, shuffle
from ffem_jax.recipes import Schedule, compute_clip_factor, make_vector_optimizer
from ffem_jax.spec import RecipeSpec

# Compiled links that a process keeps, of some 10 MB each; a network has ten to twenty.
LINKS_KEPT = 150

# Where in the whole network's tree a link's modules lie, by their names in the link.
Places = dict[Any, tuple[Any, ...]]


class Entrance(nnx.Module):
    """Stem and first block, which share a map that is never written: pixels [N, R, R, 3] -> [N, rows, columns, C]."""

    places: ClassVar[Places] = {"stem": ("network", "stem"), "block": ("network", "blocks", 0)}

    def __init__(self, stem: tuple[int, int, str, str], spec: BlockSpec, *, rngs: nnx.Rngs):
        self.stem = Stem(*stem, rngs=rngs)
        self.block = BLOCKS[spec.kind](spec, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        return stream_trunk(self.stem, [self.block], normalize_pixels(pixels))


class Middle(nnx.Module):
    """Any other block: [N, H, W, in] -> [N, rows, columns, out]."""

    def __init__(self, spec: BlockSpec, *, rngs: nnx.Rngs):
        self.block = BLOCKS[spec.kind](spec, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return stream_block(self.block, x)


class Exit(nnx.Module):
    """Head and classifier: [N, size, size, C] -> embeddings [N, embedding_dim], logits [N, people]."""

    places: ClassVar[Places] = {"head": ("network", "head"), "classifier": ("classifier",)}

    def __init__(self, head: tuple[Any, ...], dim: int, people: int, recipe: RecipeSpec, *, rngs: nnx.Rngs):
        self.head = Head(*head, rngs=rngs)
        self.classifier = PeopleClassifier(dim, people, recipe, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        embeddings = self.head(x)
        return embeddings, self.classifier(embeddings)


@dataclass(frozen=True)
class Link:
    """A link compiled for one shape of its input; with several seeds all arguments and results have an axis [seed].

    params, statistics: their trees, as shapes without that axis; lengths: of their vectors; kernels: 1 where a kernel
    lies on the params' vector, else 0.

    init(key, count) -> params, statistics, count, of random draws so far.
    forward(params, statistics, x) -> y, statistics, kept: what backward needs. Of an Exit None.
    backward(params, x, kept, gradient of y) -> gradients on a vector, their sum of squares, gradient of x. For an Exit
        (params, statistics, x, labels, margin, sums, step), and statistics and sums among the results.
    embed(params, statistics, x) -> y in evaluation.
    """

    params: Any
    statistics: Any
    kernels: np.ndarray
    lengths: tuple[int, int]
    init: Callable[..., Any]
    forward: Any
    backward: Callable[..., Any]
    embed: Callable[..., Any]


@lru_cache(maxsize=LINKS_KEPT)
def compile_link(
    kind: Any,
    arguments: tuple[Any, ...],
    batch: int,
    embed_batch: int,
    shape: tuple[int, int, int],
    seeds: int,
    context: tuple[Any, ...],
) -> Link:
    """The link kind(*arguments) for inputs [batch, *shape] in training and [embed_batch, *shape] in evaluation."""

    def split(module):
        parts: Any = nnx.split(module, nnx.Param, ...)
        return parts[0], nnx.as_pure(parts[1]), nnx.as_pure(parts[2])

    graph, params_tree, statistics_tree = split(nnx.eval_shape(lambda: kind(*arguments, rngs=nnx.Rngs(0))))
    unravel, unravel_statistics = _make_unravel(params_tree), _make_unravel(statistics_tree)

    def run(weights, x, *, statistics, train):
        module = nnx.merge(graph, weights, unravel_statistics(statistics))
        module.train() if train else module.eval()
        return module(x), ravel_pytree(split(module)[2])[0]

    def init(key, count):
        rngs = nnx.Rngs(params=key)
        rngs.params.count[...] = count
        _, params, statistics = split(kind(*arguments, rngs=rngs))
        return ravel_pytree(params)[0], ravel_pytree(statistics)[0], rngs.params.count[...]

    # How to put what forward keeps together again, known once it is traced.
    pulls: list[tuple[Any, list[int | None]]] = []

    def forward(params, statistics, x):
        weights = unravel(params)
        compute = partial(run, statistics=statistics, train=True)
        if kind is Entrance:  # nobody asks for the gradient of pixels
            y, pull, statistics = jax.vjp(lambda weights: compute(weights, x), weights, has_aux=True)
        else:
            y, pull, statistics = jax.vjp(compute, weights, x, has_aux=True)
        leaves, structure = jax.tree.flatten(pull)
        # Backward is given weights and x as they are: what is one of them is not kept a second time.
        given = [*jax.tree.leaves(weights), x]
        places = [next((place for place, one in enumerate(given) if one is leaf), None) for leaf in leaves]
        pulls.append((structure, places))
        return y, statistics, [leaf for leaf, place in zip(leaves, places, strict=True) if place is None]

    def backward(params, x, kept, grad):
        (structure, places), rest = pulls[0], iter(kept)
        given = [*jax.tree.leaves(unravel(params)), x]
        pull = jax.tree.unflatten(structure, [next(rest) if place is None else given[place] for place in places])
        grads, *grad_x = pull(grad)
        vector = ravel_pytree(grads)[0]
        return vector, vector @ vector, *grad_x

    def judge(params, statistics, x, labels, margin, sums, step):
        recipe = arguments[-1]

        def compute(weights, x):
            (_, logits), moved = run(weights, x, statistics=statistics, train=True)
            return compute_loss(logits, labels, margin, recipe), (logits, moved)

        (loss, (logits, moved)), (grads, grad_x) = jax.value_and_grad(compute, (0, 1), has_aux=True)(unravel(params), x)
        vector = ravel_pytree(grads)[0]
        sums = EpochSums(*sums).add(loss, jnp.sum(jnp.argmax(logits, axis=-1) == labels), step)
        return vector, vector @ vector, grad_x, moved, sums

    def embed(params, statistics, x):
        return run(unravel(params), x, statistics=statistics, train=False)[0]

    def shaped(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape if seeds == 1 else (seeds, *shape), dtype)

    lengths = _count(params_tree), _count(statistics_tree)
    vectors = [shaped(length) for length in lengths]
    key, count, x = shaped(dtype=jax.random.key(0).dtype), shaped(dtype=jnp.uint32), shaped(batch, *shape)
    compiled_forward = None
    if kind is Exit:
        sums = EpochSums(shaped(), shaped(dtype=jnp.int32), shaped(dtype=jnp.int32))
        labels, margin = shaped(batch, dtype=jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        step = jax.ShapeDtypeStruct((), jnp.int32)
        compiled_backward = _compile(judge, seeds, *vectors, x, labels, margin, sums, step, shared=(4, 6))
    else:
        compiled_forward = _compile(forward, seeds, *vectors, x)
        y, _, kept = compiled_forward.out_info
        compiled_backward = _compile(backward, seeds, vectors[0], x, *_forget((kept, y)))
    # All seeds embed the same pixels.
    seen = jax.ShapeDtypeStruct((embed_batch, *shape), jnp.float32) if kind is Entrance else shaped(embed_batch, *shape)
    return Link(
        params_tree,
        statistics_tree,
        np.concatenate([np.full(leaf.size, float(leaf.ndim > 1), np.float32) for leaf in jax.tree.leaves(params_tree)]),
        lengths,
        _compile(init, seeds, key, count, options=UNOPTIMIZED),
        compiled_forward,
        compiled_backward,
        _compile(embed, seeds, *vectors, seen, shared=(2,) if kind is Entrance else ()),
    )


def _make_unravel(tree: Any) -> Callable[[jax.Array], Any]:
    """From a vector to a tree of the shapes of `tree`."""
    found = []
    jax.eval_shape(lambda tree: found.append(ravel_pytree(tree)[1]), tree)
    return found[0]


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _forget(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _compile(
    function: Callable[..., Any],
    seeds: int,
    *shapes: Any,
    shared: Sequence[int] = (),
    donated: Sequence[int] = (),
    options: dict[str, str | bool] | None = None,
) -> Any:
    """`function` compiled; with several seeds over the leading axis of all arguments but those in `shared`."""
    if seeds > 1:
        function = jax.vmap(function, tuple(None if place in shared else 0 for place in range(len(shapes))))
    return jax.jit(function, donate_argnums=tuple(donated)).lower(*shapes).compile(options)


@lru_cache(maxsize=LINKS_KEPT)
def compile_update(
    recipe: RecipeSpec, lengths: tuple[int, int], seeds: int, context: tuple[Any, ...]
) -> tuple[Any, Callable[..., TrainState]]:
    """A link's optimiser state, as shapes, and its step, compiled:

    update(state, grads, statistics, kernels, factor, schedule) -> state, a TrainState of vectors; grads are multiplied
    by `factor`, schedule is the step's.
    """

    def update(state, grads, statistics, kernels, factor, schedule):
        optimizer = make_vector_optimizer(recipe, kernels)
        direction, moved = optimizer.update(grads * factor, state.optimizer, state.params)
        params, average = state.params - schedule.rate * direction, state.average
        if recipe.weight_averaging:
            new = params, statistics
            average = jax.tree.map(lambda a, new: a + schedule.averaging * (new - a), average, new)
        return TrainState(params, statistics, moved, average)

    each = (seeds,) if seeds > 1 else ()
    params, statistics = (jax.ShapeDtypeStruct((*each, length), jnp.float32) for length in lengths)
    kernels = jax.ShapeDtypeStruct((lengths[0],), jnp.float32)
    init = make_vector_optimizer(recipe, kernels).init
    optimizer = jax.eval_shape(jax.vmap(init) if each else init, params)
    state = TrainState(params, statistics, optimizer, (params, statistics) if recipe.weight_averaging else ())
    schedule = Schedule(*[jax.ShapeDtypeStruct((), jnp.float32)] * 3)
    factor = jax.ShapeDtypeStruct(each, jnp.float32)
    arguments = state, params, statistics, kernels, factor, schedule
    return optimizer, _compile(update, seeds, *arguments, shared=(3, 5), donated=(0,))


@lru_cache(maxsize=8)
def compile_feed(
    recipe: RecipeSpec,
    image_shape: tuple[int, int, int, int],
    embed_batch: int,
    seeds: int,
    context: tuple[Any, ...],
) -> tuple[Any, Any, Any]:
    """What is no link's, compiled: the order of an epoch, a step's batch, and images to embed.

    order(key, pool, train_count, epoch) -> epoch key, order.
    take(epoch key, order, images, labels, step) -> pixels [batch, R, R, 3], labels.
    pick(images, indices) -> pixels [index, R, R, 3], as they are and, for recipe.flip_test, mirrored.
    """
    batch, images, each = recipe.batch_size, image_shape[0], (seeds,) if seeds > 1 else ()

    def take(epoch_key, order, images, labels, step):
        chosen = lax.dynamic_slice(order, (step * batch,), (batch,))
        pixels = augment_images(jax.random.fold_in(epoch_key, step), images[chosen], recipe, batch)
        return pixels, labels[chosen]

    def pick(images, indices):
        pixels = images[indices].astype(jnp.float32)
        return (pixels, pixels[:, :, ::-1]) if recipe.flip_test else (pixels,)

    shaped = jax.ShapeDtypeStruct
    key, number = shaped(each, jax.random.key(0).dtype), shaped((), jnp.int32)
    faces, pool = shaped(image_shape, jnp.uint8), shaped((images,), jnp.int32)
    order = shaped((*each, images), jnp.int32)
    return (
        _compile(shuffle, seeds, key, pool, number, number, shared=(1, 2, 3)),
        _compile(take, seeds, key, order, faces, pool, number, shared=(2, 3, 4)),
        jax.jit(pick).lower(faces, shaped((embed_batch,), jnp.int32)).compile(),
    )


@lru_cache(maxsize=8)
def compile_clip(recipe: RecipeSpec, links: int, seeds: int) -> Any:
    """From the sums of squares of all links' gradients to the factor of recipe.clip_norm, compiled."""
    squares = [jax.ShapeDtypeStruct((seeds,) if seeds > 1 else (), jnp.float32)] * links
    return jax.jit(lambda squares: compute_clip_factor(recipe, jnp.sum(jnp.stack(squares), 0))).lower(squares).compile()
