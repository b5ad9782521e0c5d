"""Training compiled a block at a time: what one core of a CPU runs. program.py has the whole of it in one.

Compiling a network takes longer than a short training of it. But the networks of a sweep or of a search are made of the
same blocks: what this process compiled for one of them (links.py) serves the next, and another process finds it on the
disk. A step is then some forty calls instead of one; it computes the same.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from ffem_jax.arch import NetworkSpec
from ffem_jax.devices import release_memory
from ffem_jax.links import Entrance, Exit, Middle, Places, compile_clip, compile_feed, compile_link, compile_update
from ffem_jax.models import compute_map_sizes, head_arguments, stem_arguments
from ffem_jax.program import EpochSums, TrainState, drop_schedule, get_trace_context
from ffem_jax.recipes import Schedule, make_optimizer
from ffem_jax.spec import RecipeSpec


class Layout:
    """Where the leaves of the whole network's tree lie on the links' vectors.

    tree: the whole's, as shapes without an axis for seeds.
    """

    def __init__(self, trees: Sequence[Any], places: Sequence[Places], seeds: int):
        self.axes = (seeds,) if seeds > 1 else ()
        number, numbered = itertools.count(), []
        for tree, place in zip(trees, places, strict=True):
            for path, index in nnx.to_flat_state(jax.tree.map(lambda _: next(number), tree)):
                numbered.append(((*place[path[0]], *path[1:]), index))
        whole = nnx.from_flat_state(numbered)
        self.order: list[int] = jax.tree.leaves(whole)
        self.links = [jax.tree.leaves(tree) for tree in trees]
        leaves = list(itertools.chain(*self.links))
        self.tree = jax.tree.map(leaves.__getitem__, whole)

    def join(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """The whole's leaves, in its order, as a vector a link."""
        numbered = dict(zip(self.order, (np.asarray(array).reshape(*self.axes, -1) for array in arrays), strict=True))
        number = itertools.count()
        none = np.zeros((*self.axes, 0), np.float32)
        return [np.concatenate([none, *(numbered[next(number)] for _ in link)], axis=-1) for link in self.links]

    def split(self, vectors: Sequence[Any]) -> Any:
        """The whole's tree, of a vector a link."""
        numbered = list(itertools.chain(*map(self._cut, vectors, self.links)))
        return jax.tree.unflatten(jax.tree.structure(self.tree), [numbered[number] for number in self.order])

    def join_vector(self, vector: Any) -> list[np.ndarray]:
        """A vector of the whole, its leaves in order, as a vector a link."""
        return self.join(self._cut(vector, jax.tree.leaves(self.tree)))

    def split_vector(self, vectors: Sequence[Any]) -> np.ndarray:
        """The vector of the whole, of a vector a link."""
        leaves = jax.tree.leaves(self.split(vectors))
        return np.concatenate([leaf.reshape(*self.axes, -1) for leaf in leaves], axis=-1)

    def _cut(self, vector: Any, leaves: Sequence[Any]) -> list[np.ndarray]:
        ends = np.cumsum([leaf.size for leaf in leaves])
        parts = np.split(np.asarray(vector), ends[:-1], axis=-1)
        return [part.reshape(*self.axes, *leaf.shape) for part, leaf in zip(parts, leaves, strict=False)]


class Chain:
    """The program of one network, made of compiled links: init, train_steps and embed are those of program.Program."""

    def __init__(
        self,
        network: NetworkSpec,
        recipe: RecipeSpec,
        whole: Sharding,
        seeds: int,
        image_shape: tuple[int, int, int, int],
        people: int,
        embed_batch: int,
        context: tuple[Any, ...],
    ):
        self.whole, self.axes = whole, (seeds,) if seeds > 1 else ()
        sizes, blocks = compute_map_sizes(network, image_shape[1]), network.blocks
        kinds: list[tuple[Any, tuple[Any, ...]]] = [
            (Entrance, (stem_arguments(network), blocks[0])),
            *((Middle, (block,)) for block in blocks[1:]),
            (Exit, (head_arguments(network, sizes[-1]), network.embedding_dim, people, recipe)),
        ]
        channels = [3, *(block.out_channels for block in blocks)]
        shapes = [(size, size, width) for size, width in zip([sizes[0], *sizes[2:]], channels, strict=True)]
        # In any order: of what two processes need at one time, each finds most of what the other did on the disk.
        compiled = {
            place: compile_link(*kinds[place], recipe.batch_size, embed_batch, shapes[place], seeds, context)
            for place in random.sample(range(len(kinds)), len(kinds))
        }
        self.links = [compiled[place] for place in range(len(kinds))]
        middles: list[Places] = [{"block": ("network", "blocks", place)} for place in range(1, len(blocks))]
        places = [Entrance.places, *middles, Exit.places]
        self.params = Layout([link.params for link in self.links], places, seeds)
        self.statistics = Layout([link.statistics for link in self.links], places, seeds)
        self.kernels = [jnp.asarray(link.kernels) for link in self.links]
        updates = [compile_update(recipe, link.lengths, seeds, context) for link in self.links]
        self.optimizers, self.updates = zip(*updates, strict=True)
        self.clip = compile_clip(recipe, len(self.links), seeds)
        self.order, self.take, self.pick = compile_feed(recipe, image_shape, embed_batch, seeds, context)

        params, statistics = self.params.tree, self.statistics.tree
        optimizer = jax.eval_shape(make_optimizer(recipe).init, params)
        state = TrainState(params, statistics, optimizer, (params, statistics) if recipe.weight_averaging else ())
        self.abstract_state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((*self.axes, *leaf.shape), leaf.dtype, sharding=whole), state
        )

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first step."""
        networks, count = [], jnp.zeros(self.axes, jnp.uint32)
        for link in self.links:
            params, statistics, count = link.init(key, count)
            networks.append((params, statistics))
        network = self._split_network(networks)
        # Momentum and moments begin at nothing, whichever the optimiser.
        optimizer = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.abstract_state.optimizer)
        average = network if self.abstract_state.average else ()
        return jax.device_put(TrainState(*network, optimizer, average), self.whole)

    def train_steps(
        self,
        state: TrainState,
        sums: EpochSums,
        key: jax.Array,
        images: jax.Array,
        labels: jax.Array,
        pool: jax.Array,
        train_count: int,
        schedule: Schedule,
        epoch: int,
        first: int,
        last: int,
    ) -> tuple[TrainState, EpochSums]:
        """Make steps first to last of an epoch and add them to `sums`."""
        states = self._join(state)
        epoch_key, order = self.order(key, pool, np.int32(train_count), np.int32(epoch))
        for number in range(first, last):
            now = Schedule(*(values[number] for values in schedule))
            step, now = jax.device_put((np.int32(number), now), self.whole)
            pixels, owners = self.take(epoch_key, order, images, labels, step)
            states, sums = self._step(states, sums, pixels, owners, now, step)
        return self._split(states), sums

    def _step(self, states, sums, x, labels, schedule, step):
        tape, moved = [], []
        for link, state in zip(self.links[:-1], states[:-1], strict=True):
            y, statistics, kept = link.forward(state.params, state.statistics, x)
            tape.append((link, state.params, x, kept))
            moved.append(statistics)
            x = y
        end = states[-1]
        vector, square, grad, statistics, sums = self.links[-1].backward(
            end.params, end.statistics, x, labels, schedule.margin, sums, step
        )
        grads, squares = [vector], [square]
        while tape:
            link, params, x, kept = tape.pop()
            vector, square, *rest = link.backward(params, x, kept, grad)
            grad = rest[0] if rest else None
            grads.append(vector)
            squares.append(square)
        factor = self.clip(squares)
        parts = zip(self.updates, states, reversed(grads), [*moved, statistics], self.kernels, strict=True)
        return [update(*arguments, factor, schedule) for update, *arguments in parts], sums

    def embed(self, state: TrainState, images: jax.Array, indices: Any) -> tuple[jax.Array, jax.Array]:
        """Embeddings [index, embedding_dim] and logits [index, people] in evaluation."""
        network = jax.device_put(self._join_network(*state.evaluated), self.whole)
        found = [self._run(network, pixels) for pixels in self.pick(images, indices)]
        return tuple(sum(each) / len(found) for each in zip(*found, strict=True))

    def _run(self, network, x):
        for link, (params, statistics) in zip(self.links, network, strict=True):
            x = link.embed(params, statistics, x)
        return x

    # ------------------------------------------------- the whole's state and the links' states

    def _join(self, state: TrainState) -> list[TrainState]:
        networks = self._join_network(state.params, state.statistics)
        averages = self._join_network(*state.average) if state.average else [()] * len(networks)
        leaves = [
            [leaf] * len(networks) if leaf.ndim == len(self.axes) else self.params.join_vector(leaf)
            for leaf in map(np.asarray, jax.tree.leaves(state.optimizer))
        ]
        optimizers = [
            jax.tree.unflatten(jax.tree.structure(optimizer), own)
            for optimizer, *own in zip(self.optimizers, *leaves, strict=True)
        ]
        states = [TrainState(*parts) for parts in zip(*zip(*networks, strict=True), optimizers, averages, strict=True)]
        return jax.device_put(states, self.whole)

    def _split(self, states: list[TrainState]) -> TrainState:
        network = self._split_network([(state.params, state.statistics) for state in states])
        average = self._split_network([state.average for state in states]) if states[0].average else ()
        leaves = [
            parts[0] if parts[0].ndim == len(self.axes) else self.params.split_vector(list(parts))
            for parts in zip(*(jax.tree.leaves(state.optimizer) for state in states), strict=True)
        ]
        optimizer = jax.tree.unflatten(jax.tree.structure(self.abstract_state.optimizer), leaves)
        return jax.device_put(TrainState(*network, optimizer, average), self.whole)

    def _join_network(self, params: Any, statistics: Any) -> list[tuple[Any, Any]]:
        layouts = (self.params, params), (self.statistics, statistics)
        return list(zip(*(layout.join(jax.tree.leaves(tree)) for layout, tree in layouts), strict=True))

    def _split_network(self, networks: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        params, statistics = zip(*networks, strict=True)
        return self.params.split(params), self.statistics.split(statistics)


def compile_chain(
    network: NetworkSpec,
    recipe: RecipeSpec,
    whole: Sharding,
    seeds: int,
    image_shape: tuple[int, int, int, int],
    people: int,
    embed_batch: int,
) -> Chain:
    """The chain for `image_shape` [image, R, R, 3] faces in all, `embed_batch` at a time embedded, on one CPU core.

    Trials that differ in seed, fold or learning rate get one and the same; this process keeps the last two, and the
    links of more.
    """
    shared = get_trace_context()
    return _compile_chain(network, drop_schedule(recipe), whole, seeds, image_shape, people, embed_batch, shared)


@lru_cache(maxsize=2)
def _compile_chain(*arguments: Any) -> Chain:
    chain = Chain(*arguments)
    release_memory()
    return chain
