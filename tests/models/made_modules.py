"""Modules with the values that training begins with, drawn by one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ffem_jax.models.draws import build_at_once, plan_draws
from ffem_jax.training.program import UNOPTIMIZED


def draw_parts(build: Callable[[Any], Any]) -> tuple[nnx.GraphDef[Any], Any, Any]:
    """The graph, the parameters and the rest of what `build`, which takes an nnx.Rngs, makes.

    JAX would compile each operation of nnx.Rngs and of the first values by itself, which takes several times as long.
    """
    module, draws = plan_draws(build)
    graph, *_ = nnx.split(module, nnx.Param, ...)

    def draw(key: jax.Array) -> tuple[Any, Any]:
        _, params, rest = nnx.split(build_at_once(build, key, draws), nnx.Param, ...)
        return params, rest

    return graph, *jax.jit(draw, compiler_options=UNOPTIMIZED)(jax.random.key(0))
