"""Peak memory of programs small enough to be worked by hand."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffem_jax.config.presets import PRESETS
from ffem_jax.cost.cost import compute_cost
from ffem_jax.cost.liveness import compute_peak_bytes, walk_equations

UNIT = 4 * 8 * 8  # bytes of one 8 x 8 activation
ROW = 4 * 8


def trace(function, *shapes):
    return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr


def peak(function) -> int:
    """Of function(w, x): an 8 x 8 weight and an 8 x 8 activation."""
    jaxpr = trace(function, (8, 8), (8, 8))
    return compute_peak_bytes(jaxpr, jaxpr.invars[-1])


product = jax.jit(lambda w, x: x @ w)


@jax.custom_jvp
def swish(x):
    return x * jnp.tanh(x)


swish.defjvps(lambda tangent, _, x: tangent * x)


# What the program shows, the program, its peak.
WORKED = {
    "nothing is computed": (lambda w, x: x, UNIT),
    "a product: what goes in and what comes out": (lambda w, x: x @ w, 2 * UNIT),
    "a chain: only the last two": (lambda w, x: x @ w @ w @ w, 2 * UNIT),
    "elementwise: in place": (lambda w, x: jnp.tanh(x) * 2 + 1, UNIT),
    "elementwise in a chain": (lambda w, x: jnp.tanh(x @ w) @ w, 2 * UNIT),
    "a residual keeps its input alive": (lambda w, x: x + (x @ w) @ w, 3 * UNIT),
    "two residuals": (lambda w, x: x + ((y := x @ w) + (y @ w) @ w) @ w, 4 * UNIT),
    "a product reads it again: not in place": (lambda w, x: (y := x @ w, jnp.tanh(y) @ w + y @ w)[1], 3 * UNIT),
    "sums over weights are not counted": (lambda w, x: x @ (w @ w + jnp.exp(w) @ w), 2 * UNIT),
    "a broadcast gate takes no memory": (lambda w, x: x * jnp.broadcast_to(jnp.mean(x, axis=0), (8, 8)), UNIT + ROW),
    "nor can a result be written over it": (
        lambda w, x: (gated := x * jnp.broadcast_to(jnp.mean(x, axis=0), (8, 8)), gated @ w + gated @ w + x @ w)[1],
        4 * UNIT,
    ),
    "one jitted function called twice": (lambda w, x: x + (y := product(w, x)) + product(w, y), 3 * UNIT),
    "jit inside jit": (lambda w, x: jax.jit(lambda x: product(w, product(w, x)) + x)(x), 3 * UNIT),
    "literals handed to a jitted function": (lambda w, x: jnp.clip(x @ w, 0, 6) @ w, 2 * UNIT),
    "custom_jvp": (lambda w, x: jax.nn.relu(swish(x @ w)) @ w, 2 * UNIT),
    "a reshape is a view": (lambda w, x: (x @ w).reshape(64).reshape(8, 8) @ w, 2 * UNIT),
    "another type is another buffer": (lambda w, x: x.astype(jnp.float16), UNIT),
}


@pytest.mark.parametrize("name", WORKED)
def test_peak_worked_by_hand(name):
    function, wanted = WORKED[name]
    assert peak(function) == wanted


def test_bytes_grow_where_a_type_does():
    jaxpr = jax.make_jaxpr(lambda x: x.astype(jnp.float32) * 2)(jax.ShapeDtypeStruct((10,), jnp.uint8)).jaxpr
    assert compute_peak_bytes(jaxpr, jaxpr.invars[-1]) == 10 + 40


@settings(max_examples=25)
@given(widths=st.lists(st.integers(1, 40), min_size=2, max_size=6), activated=st.booleans())
def test_a_chain_peaks_at_its_widest_pair_of_neighbours(widths, activated):
    def chain(weights, x):
        for weight in weights:
            x = jnp.tanh(x @ weight) if activated else x @ weight
        return x

    weights = [jax.ShapeDtypeStruct(pair, jnp.float32) for pair in pairwise(widths)]
    jaxpr = jax.make_jaxpr(chain)(weights, jax.ShapeDtypeStruct((3, widths[0]), jnp.float32)).jaxpr
    widest = max(left + right for left, right in pairwise(widths))
    assert compute_peak_bytes(jaxpr, jaxpr.invars[-1]) == 4 * 3 * widest


def test_calls_are_walked_in_their_place_each_time():
    jaxpr = trace(lambda w, x: jnp.tanh(product(w, jnp.exp(product(w, x)))), (8, 8), (8, 8))
    assert [equation.primitive.name for equation in walk_equations(jaxpr)] == [
        "dot_general",
        "exp",
        "dot_general",
        "tanh",
    ]


def test_mobilenetv2_peaks_in_its_second_bottleneck():
    """The depthwise convolution of stride 2 on 96 = 6 x 16 channels reads 112 x 112 and writes 56 x 56 of them; the
    bottleneck's own input is dead by then, for stride 2 has no shortcut. The expansion before it holds less: 16 and
    96 channels at 112 x 112."""
    reads_and_writes = 4 * (112 * 112 * 96 + 56 * 56 * 96)
    assert reads_and_writes == 6_021_120 > 4 * 112 * 112 * (16 + 96)
    arch = dataclasses.replace(PRESETS["mobilenetv2"], embedding_dim=1000)
    assert compute_cost(arch, 224).peak_activation_bytes == reads_and_writes
