"""What kernels begin as: drawn one by one, or all of a network by one small loop, which compiles far faster.

JAX numbers the draws of a key, so that of two arrays drawn with one key the shorter is the beginning of the longer: all
kernels are drawn as long as the longest, and cut. The numbers are the same either way.
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
    """PyTorch's default for convolutions and dense layers: uniform, of variance 1 / (3 * inputs).

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
    """Stands for nnx.Rngs where the draws of a module are to be known."""

    def __init__(self) -> None:
        self.count, self.draws = 0, list[Draw]()

    def params(self) -> jax.Array:
        self.count += 1
        return jax.random.key(0)


class _Keys:
    """nnx.Rngs(params=key) without its Variables: setting these is a third of what tracing a network takes."""

    def __init__(self, key: jax.Array) -> None:
        self.key, self.count = key, 0

    def params(self) -> jax.Array:
        self.count += 1
        return jax.random.fold_in(self.key, np.uint32(self.count - 1))


def plan_draws(build: Callable[[Any], Any]) -> tuple[Any, list[Draw]]:
    """What `build`, which takes an nnx.Rngs, makes, with shapes for arrays, and the draws of every `kernel_init` in it.

    Returns:
        The abstract module, and for each draw the number of its key and its shape, in order.
    """
    recorder = _Recorder()
    token: Any = _recorder.set(recorder)
    try:
        module = nnx.eval_shape(lambda: build(recorder))
    finally:
        _recorder.reset(token)
    return module, recorder.draws


def build_at_once(build: Callable[[Any], Any], key: jax.Array, draws: list[Draw]) -> Any:
    """build(nnx.Rngs(params=key)), every `kernel_init` of it drawn by one loop.

    Args:
        build: makes the module of an nnx.Rngs.
        key: what everything is drawn from.
        draws: as `plan_draws(build)` has them.
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
