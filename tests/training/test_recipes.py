"""Schedules against their closed forms, optimisers and averages against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.recipes import (
    compute_averaging_shares,
    compute_learning_rates,
    compute_margins,
    compute_schedule,
    make_optimizer,
)


def make_recipe(**choices) -> RecipeSpec:
    plain = {"weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    return RecipeSpec(**{**plain, **choices})


# ------------------------------------------------------------------------------------- rates


def test_the_papers_rate_is_0_96_to_the_epoch_at_every_step():
    recipe = make_recipe(schedule="exponential", learning_rate=0.1, decay=0.96, epochs=30)
    rates = compute_learning_rates(recipe, 41)
    assert rates.shape == (30, 41)
    assert rates.dtype == np.float32
    wanted = [[0.1 * 0.96**epoch] * 41 for epoch in range(30)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)


def test_constant_is_constant():
    rates = compute_learning_rates(make_recipe(schedule="constant", learning_rate=0.3, epochs=2), 5)
    np.testing.assert_array_equal(rates, np.full((2, 5), 0.3, np.float32))


def test_one_cycle_worked_by_hand():
    recipe = make_recipe(schedule="one_cycle", learning_rate=0.5, warmup_fraction=0.2, epochs=3)
    rates = compute_learning_rates(recipe, 7).ravel()  # 21 steps: 0 to 20, the peak at 4
    assert rates[0] == pytest.approx(0.5 / 25)
    assert rates[2] == pytest.approx(0.5 * (1 + 1 / 25) / 2)  # halfway up the cosine
    assert rates[4] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.25)  # halfway down
    assert rates[20] == pytest.approx(0.0, abs=1e-7)


@given(
    epochs=st.integers(1, 12),
    steps=st.integers(1, 30),
    warmup=st.just(0.0) | st.floats(1e-3, 0.9),
    peak=st.floats(1e-4, 10.0),
)
def test_one_cycle_rises_to_the_peak_and_falls_to_nothing(epochs, steps, warmup, peak):
    recipe = make_recipe(schedule="one_cycle", learning_rate=peak, warmup_fraction=warmup, epochs=epochs)
    rates = compute_learning_rates(recipe, steps).ravel().astype(float) / peak
    total = epochs * steps
    assert np.isfinite(rates).all()
    assert rates.min() > -1e-6
    assert rates.max() < 1 + 1e-6
    top = int(rates.argmax())
    assert abs(top - warmup * (total - 1)) <= 1
    assert (np.diff(rates[: top + 1]) >= -1e-6).all()
    assert (np.diff(rates[top:]) <= 1e-6).all()
    if total > 1:
        assert rates[-1] == pytest.approx(0, abs=1e-6)
        assert rates[0] == pytest.approx(1 / 25 if warmup else 1)


def test_one_cycle_without_warmup_starts_at_the_peak():
    recipe = make_recipe(schedule="one_cycle", learning_rate=0.2, warmup_fraction=0.0, epochs=1)
    np.testing.assert_allclose(compute_learning_rates(recipe, 3), [[0.2, 0.1, 0.0]], atol=1e-7)


@pytest.mark.parametrize(("warmup", "share"), [(0.0, 1.0), (0.1, 1 / 25)])
def test_one_cycle_of_one_step(warmup, share):
    recipe = make_recipe(schedule="one_cycle", learning_rate=0.2, warmup_fraction=warmup, epochs=1)
    np.testing.assert_allclose(compute_learning_rates(recipe, 1), [[0.2 * share]], rtol=1e-6)


# ----------------------------------------------------------------------- margins and averages


def test_a_margin_is_nothing_then_rises_then_stays():
    recipe = make_recipe(loss="arcface", margin=0.4, margin_warmup=0.25, margin_rise=0.5, epochs=4)
    margins = compute_margins(recipe, 10)
    assert margins.shape == (4, 10)
    assert margins.dtype == np.float32
    np.testing.assert_array_equal(margins[0], 0)
    assert margins[1, 0] == 0
    assert margins[2, 0] == pytest.approx(0.2)
    np.testing.assert_allclose(margins[3], 0.4)
    np.testing.assert_allclose(np.diff(margins[1:3].ravel()), 0.02, rtol=1e-4)


@pytest.mark.parametrize(("warmup", "first"), [(0.0, 0), (0.5, 10), (1.0, 20)])
def test_a_margin_may_come_at_once_or_never(warmup, first):
    recipe = make_recipe(loss="arcface", margin=0.4, margin_warmup=warmup, margin_rise=0.0, epochs=2)
    wanted = np.where(np.arange(20) < first, 0, np.float32(0.4))
    np.testing.assert_array_equal(compute_margins(recipe, 10).ravel(), wanted)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_averaging_is_the_moving_average_with_its_start_corrected(decay):
    values = np.random.default_rng(0).normal(size=30)
    shares = compute_averaging_shares(make_recipe(weight_averaging=decay, epochs=3), 10).ravel()
    average, moving = 99.0, 0.0  # what there was before the first step has no say
    for step, (value, share) in enumerate(zip(values, shares, strict=True), start=1):
        average += float(share) * (value - average)
        moving = decay * moving + (1 - decay) * value
        assert average == pytest.approx(moving / (1 - decay**step), abs=1e-5)
    if decay == 0.999:  # 30 steps are short beside a memory of 1,000
        assert average == pytest.approx(values.mean(), abs=0.02)


def test_the_schedule_is_all_three_at_every_step():
    schedule = compute_schedule(make_recipe(epochs=2), 5)
    assert {values.shape for values in schedule} == {(2, 5)}
    assert {values.dtype for values in schedule} == {np.dtype(np.float32)}


# -------------------------------------------------------------------------------- directions


def draw(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2), "filter": (3, 3, 1, 2), "bias": (2,), "scale": (2,)}
    return {name: (scale * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def measure_norm(tree: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in tree.values())))


def walk(recipe: RecipeSpec, gradients: list[dict], params: dict, rate: float = 1.0) -> list[dict]:
    """The direction of each step, going down by `rate` times it, as the training loop does: on one vector."""
    vector, restore = ravel_pytree(params)
    kernels = ravel_pytree(jax.tree.map(lambda leaf: np.full(leaf.shape, leaf.ndim > 1, np.float32), params))[0]
    optimizer = make_optimizer(recipe, kernels)
    state = optimizer.init(vector)
    update = jax.jit(optimizer.update)
    directions = []
    for gradient in gradients:
        direction, state = update(ravel_pytree(gradient)[0], state, vector)
        vector = vector - rate * direction
        directions.append(jax.tree.map(np.asarray, restore(direction)))
    return directions


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_pulls_kernels_and_nothing_else(optimizer):
    params = draw(0)
    zeros = jax.tree.map(np.zeros_like, params)
    (direction,) = walk(make_recipe(optimizer=optimizer, weight_decay=0.25), [zeros], params)
    for name in ("kernel", "filter"):
        np.testing.assert_allclose(direction[name], 0.25 * params[name], rtol=1e-6)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(direction[name], zeros[name])


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_sutskever_et_al_over_three_steps(nesterov):
    recipe = make_recipe(optimizer="sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    params, gradients = draw(0), [draw(seed) for seed in (1, 2, 3)]
    found = walk(recipe, gradients, params, rate=0.1)
    for name, start in params.items():
        position, velocity = start.astype(float), np.zeros(start.shape)
        for step, gradient in enumerate(gradients):
            decayed = gradient[name] + (0.01 * position if start.ndim > 1 else 0)
            velocity = 0.9 * velocity + decayed
            direction = decayed + 0.9 * velocity if nesterov else velocity
            np.testing.assert_allclose(found[step][name], direction, rtol=1e-5, atol=1e-6)
            position = position - 0.1 * direction


def test_sgd_without_momentum_goes_down_the_gradient():
    gradient = draw(1)
    (direction,) = walk(make_recipe(optimizer="sgd", nesterov=True), [gradient], draw(0))
    jax.tree.map(np.testing.assert_array_equal, direction, gradient)


def test_adamw_is_finite_and_of_unit_size_at_first():
    recipe = make_recipe(optimizer="adamw", momentum=0.9, weight_decay=0.01)
    params, gradients = draw(0), [draw(1), draw(2, scale=1e6), jax.tree.map(np.zeros_like, draw(0))]
    found = walk(recipe, gradients, params, rate=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    # After one step both bias-corrected moments are the gradient's own: g / sqrt(g^2).
    np.testing.assert_allclose(found[0]["bias"], np.sign(gradients[0]["bias"]), rtol=1e-4)
    wanted = np.sign(gradients[0]["kernel"]) + 0.01 * params["kernel"]
    np.testing.assert_allclose(found[0]["kernel"], wanted, rtol=1e-4)


def test_clip_norm_cuts_long_gradients_and_keeps_their_direction():
    recipe = make_recipe(clip_norm=0.5)
    long, short = draw(1, scale=10.0), draw(1, scale=1e-3)
    cut, kept = walk(recipe, [long, short], draw(0))
    assert measure_norm(long) > 0.5
    assert measure_norm(cut) == pytest.approx(0.5, rel=1e-5)
    ratio = 0.5 / measure_norm(long)
    jax.tree.map(lambda c, g: np.testing.assert_allclose(c, ratio * g, rtol=1e-5), cut, long)
    jax.tree.map(np.testing.assert_array_equal, kept, short)


def test_clipping_comes_before_weight_decay():
    recipe = make_recipe(clip_norm=0.5, weight_decay=1.0)
    params = draw(0, scale=100.0)
    (direction,) = walk(recipe, [draw(1, scale=10.0)], params)
    assert float(jnp.linalg.norm(direction["kernel"])) > 10 * 0.5
