"""Liveness of activations: the peak memory of a traced program that runs one operation after another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

# Operations that a runtime fuses into the previous one, overwriting their operand.
IN_PLACE = frozenset(
    "abs add add_any and clamp convert_element_type copy div eq exp ge gt integer_pow is_finite le log logistic lt max "
    "min mul ne neg not or pow reshape rsqrt select_n sign sqrt squeeze square stop_gradient sub tanh".split()
)


def walk_equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yield all equations of `jaxpr`, with calls inlined."""
    for equation, _ in _inline(jaxpr, {}):
        yield equation


def _inline(jaxpr: Jaxpr, names: dict[Var, Any]) -> Iterator[tuple[JaxprEqn, dict[Var, Any]]]:
    """Yield each equation with the map from its variables to those of the outermost program."""
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        if inner is None:
            yield equation, names
            continue
        inner = getattr(inner, "jaxpr", inner)
        inside = dict(zip(inner.invars, (_resolve(v, names) for v in equation.invars), strict=True))
        # A function that is called twice is traced once, but each call has its own results.
        inside.update((v, Var(v.aval)) for step in inner.eqns for v in step.outvars)
        yield from _inline(inner, inside)
        for outer, result in zip(equation.outvars, inner.outvars, strict=True):
            names[outer] = _resolve(result, inside)


def _resolve(variable: Any, names: dict[Var, Any]) -> Any:
    return variable if isinstance(variable, Literal) else names.get(variable, variable)


def compute_peak_bytes(jaxpr: Jaxpr, source: Var) -> int:
    """Return the peak bytes of all live values that depend on `source`, including `source`.

    Operations run one after another as written. An elementwise operation overwrites an operand of its output's size
    unless a non-elementwise operation reads that operand later. A broadcast takes no memory of its own. Values that do
    not depend on `source` (weights and sums of weights) are not counted.
    """
    steps = [
        (
            equation.primitive.name,
            [v for v in (_resolve(v, names) for v in equation.invars) if not isinstance(v, Literal)],
            [_resolve(v, names) for v in equation.outvars],
        )
        for equation, names in _inline(jaxpr, {})
    ]
    last_heavy_use: dict[Any, int] = {}
    for index, (name, inputs, _) in enumerate(steps):
        if name not in IN_PLACE:
            last_heavy_use.update((v, index) for v in inputs)

    buffer_of = {source: source}
    last_use: dict[Any, int] = {source: 0}
    for index, (name, inputs, outputs) in enumerate(steps):
        live = [v for v in inputs if v in buffer_of]
        for v in live:
            last_use[buffer_of[v]] = index
        if not live:
            continue
        for output in outputs:
            shared = next(
                (
                    v
                    for v in live
                    if name == "broadcast_in_dim"
                    or (
                        name in IN_PLACE
                        # A broadcast operand appears as large as the output, but its buffer is smaller.
                        and _bytes(buffer_of[v]) >= _bytes(output)
                        and last_heavy_use.get(v, -1) <= index
                    )
                ),
                None,
            )
            buffer_of[output] = buffer_of[shared] if shared is not None else output
            last_use.setdefault(buffer_of[output], index)

    created: dict[Any, int] = {}
    for index, (_, _, outputs) in enumerate(steps):
        for output in outputs:
            if output in buffer_of:
                created.setdefault(buffer_of[output], index)
    created[source] = 0
    return max(
        (
            sum(_bytes(b) for b, start in created.items() if start <= index <= last_use[b])
            for index in range(len(steps))
        ),
        default=_bytes(source),
    )


def _bytes(variable: Any) -> int:
    return math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
