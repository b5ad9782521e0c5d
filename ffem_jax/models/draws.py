"""Initial kernels: drawn one by one, or all kernels of a network in one small loop, which compiles far faster.

Of two arrays that JAX draws with one key, the shorter is a prefix of the longer. The loop therefore draws every kernel
at the length of the longest and cuts it. Both ways draw the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ffem_jax.models.vectors import cut

Draw = tuple[int, tuple[int, ...]]

_recorder: ContextVar[_Recorder | None] = ContextVar("recorder", default=None)
_drawn: ContextVar[Iterator[jax.Array] | None] = ContextVar("drawn", default=None)


def kernel_init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """PyTorch's default initialisation of convolutions and dense layers: uniform with variance 1 / (3 * inputs).

    shape [..., in, out]. A normal draw takes twice as long to compile.
    """
    if recorder := _recorder.get():
        recorder.draws.append((recorder.count - 1, tuple(shape)))
        return jnp.zeros(shape, dtype)
    if drawn := _drawn.get():
        return next(drawn).reshape(shape)
    return _spread(jax.random.uniform(key, shape, dtype, -1.0), shape)


def _spread(draws, shape):
    return draws * np.float32(1 / math.sqrt(math.prod(shape[:-1])))


class _Recorder:
    """Stands in for nnx.Rngs to record the draws of a module."""

    def __init__(self) -> None:
        self.count, self.draws = 0, list[Draw]()

    def params(self) -> jax.Array:
        self.count += 1
        return jax.random.key(0)


class _Keys:
    """nnx.Rngs(params=key) without its Variables: setting them takes a third of the time to trace a network."""

    def __init__(self, key: jax.Array) -> None:
        self.key, self.count = key, 0

    def params(self) -> jax.Array:
        self.count += 1
        return jax.random.fold_in(self.key, np.uint32(self.count - 1))


def plan_draws(build: Callable[[Any], Any]) -> tuple[Any, list[Draw]]:
    """Return the abstract module of `build`, a function of an nnx.Rngs, and all its draws by `kernel_init`.

    Returns:
        The module with shapes in place of arrays, and for each draw, in order, the number of its key and its shape.
    """
    recorder = _Recorder()
    token: Any = _recorder.set(recorder)
    try:
        module = nnx.eval_shape(lambda: build(recorder))
    finally:
        _recorder.reset(token)
    return module, recorder.draws


def build_at_once(build: Callable[[Any], Any], key: jax.Array, draws: list[Draw]) -> Any:
    """Return build(nnx.Rngs(params=key)), with all draws of `kernel_init` made in one loop.

    Args:
        build: builds the module from an nnx.Rngs.
        key: the key of all draws.
        draws: from `plan_draws(build)`.
    """
    numbers, shapes = zip(*draws, strict=True)
    longest = max(map(math.prod, shapes))
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.asarray(numbers, jnp.uint32))
    scales = jnp.asarray([_spread(np.float32(1), shape) for shape in shapes])
    rows = lax.map(lambda each: jax.random.uniform(each[0], (longest,), jnp.float32, -1.0) * each[1], (keys, scales))
    parts = [
        (jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((longest - math.prod(shape),), jnp.float32))
        for shape in shapes
    ]
    token = _drawn.set(iter([part for part, _ in cut(rows.reshape(-1), parts)]))
    try:
        return build(_Keys(key))
    finally:
        _drawn.reset(token)
