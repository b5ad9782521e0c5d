"""The surrogate against regression written out, refits without each point, and networks it never saw."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ffem_jax.metrics.ranking import compute_kendall_tau
from ffem_jax.search.model.encoding import embed_codes, sample_codes
from ffem_jax.search.model.surrogate import KERNELS, Kernel, Scale, Surrogate, SurrogateError, fit_rates
from ffem_jax.search.space import Choice, SearchSpace

SPACE = SearchSpace(tuple(Choice(f"c{n}", ("0", "1", "2"), ordered=n % 2 == 0) for n in range(9)))


def draw_task(seed, count, noise=0.2, joint=0.6):
    """Features, true values (single choices and pairs of them), and values seen."""
    draw = np.random.default_rng(seed)
    features = embed_codes(SPACE, sample_codes(SPACE, count, draw)).astype(float)
    single, pairs = draw.normal(size=features.shape[1]), draw.normal(size=(features.shape[1],) * 2)
    alone, together = features @ single, np.einsum("ij,jk,ik->i", features, pairs, features)
    true = 1 + alone / alone.std() + joint * together / together.std()
    return features, true, true + noise * draw.normal(size=count)


def test_the_additive_kernel_is_ridge_regression():
    features, _, seen = draw_task(0, 60)
    model = Surrogate(features[:40], seen[:40], kernels=(Kernel(),))
    # Ridge with a free mean, solved as a least-squares problem of its own.
    rows = np.hstack([features[:40], np.ones((40, 1))])
    penalty = np.diag([model.noise] * features.shape[1] + [0.0])
    weights = np.linalg.lstsq(rows.T @ rows + penalty, rows.T @ seen[:40], rcond=None)[0]
    expected = np.hstack([features[40:], np.ones((20, 1))]) @ weights
    means, _ = model.predict(features[40:])
    assert means == pytest.approx(expected, abs=1e-3)
    assert model.predict_means(features[40:]) == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("kernel", [Kernel(), Kernel(0.3, 0.6), Kernel(3.0, 0.2, 1.0)])
def test_leaving_one_out_is_refitting_without_it(kernel):
    features, _, seen = draw_task(1, 30)
    tests = np.where(np.arange(30) % 3, 1.0, 3.0)
    costs = np.exp(features[:, :1] + 0.1 * np.arange(30)[:, None])
    model = Surrogate(features, seen, tests, costs, (kernel,))
    guesses, deviations = model.left_out
    scaled = model.costs
    covariance = kernel.compute(model.features, model.features, scaled, scaled).astype(float)
    for left in (0, 1, 7):
        rest = np.delete(np.arange(30), left)
        inverse = np.linalg.inv(covariance[np.ix_(rest, rest)] + model.noise * np.diag(1 / tests[rest]))
        mean = inverse.sum(axis=0) @ seen[rest] / inverse.sum()
        across = covariance[left, rest]
        assert guesses[left] == pytest.approx(mean + across @ inverse @ (seen[rest] - mean), abs=1e-4)
        variance = covariance[left, left] + model.noise / tests[left] - across @ inverse @ across
        variance += (1 - across @ inverse.sum(axis=0)) ** 2 / inverse.sum()
        assert deviations[left] == pytest.approx(math.sqrt(model.variance * variance), rel=1e-3)


def test_choices_that_work_together_are_learnt():
    features, true, seen = draw_task(2, 500, joint=1.0)
    known, rest = slice(0, 250), slice(250, 500)
    additive = Surrogate(features[known], seen[known], kernels=(Kernel(),))
    every = Surrogate(features[known], seen[known])
    taus = [compute_kendall_tau(model.predict_means(features[rest]), true[rest]) for model in (additive, every)]
    assert every.kernel.interaction_weight > 0
    assert taus[1] > taus[0] + 0.05 > 0.5


def test_a_known_cost_helps_where_it_decides():
    features, true, _ = draw_task(3, 260, joint=0.0)
    draw = np.random.default_rng(3)
    costs = np.exp(draw.normal(size=260))
    true = 0.2 * true + np.log(costs)
    seen = true + 0.1 * draw.normal(size=260)
    blind, told = Surrogate(features[:60], seen[:60]), Surrogate(features[:60], seen[:60], None, costs[:60])
    assert told.kernel.cost > 0
    assert compute_kendall_tau(told.predict_means(features[60:], costs[60:]), true[60:]) > 0.8
    assert compute_kendall_tau(blind.predict_means(features[60:]), true[60:]) < 0.5


def test_the_intervals_hold_what_they_say():
    inside = []
    for seed in range(12):
        features, true, _ = draw_task(seed, 240)
        seen = true + 0.3 * np.random.default_rng(seed + 100).normal(size=240)
        model = Surrogate(features[:40], seen[:40])
        means, deviations = model.predict(features[40:])
        reach = model.compute_reach(0.9) * np.hypot(deviations, model.noise_deviation)
        inside.append(np.mean(np.abs(seen[40:] - means) <= reach))
    assert 0.87 <= np.mean(inside) <= 0.97


def test_a_mean_of_many_trainings_counts_for_more():
    features, _, seen = draw_task(4, 40, noise=1.0)
    ones = np.ones(40)
    once, often = (
        Surrogate(features, seen, tests, kernels=(Kernel(),)) for tests in (ones, 1 + 99 * (ones.cumsum() > 20))
    )
    first, second = (np.abs(model.predict_means(features) - seen)[20:].mean() for model in (once, often))
    assert second < first


def test_what_cannot_be_learnt_from():
    features, _, seen = draw_task(5, 20)
    with pytest.raises(SurrogateError, match="7 networks are too few .* train 8 or more"):
        Surrogate(features[:7], seen[:7])
    with pytest.raises(SurrogateError, match="not finite"):
        Surrogate(features, np.where(np.arange(20) == 3, math.nan, seen))


def test_equal_values_are_predicted_and_nothing_breaks():
    features, _, _ = draw_task(6, 30)
    model = Surrogate(features[:20], np.full(20, 0.7))
    means, deviations = model.predict(features[20:])
    assert means == pytest.approx(np.full(10, 0.7), abs=1e-5)
    assert np.isfinite(deviations).all()
    assert len(KERNELS) == len(set(KERNELS))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_a_scale_goes_back_and_its_slope_is_its_derivative(power):
    scale, rates = Scale(power), np.array([0.02, 0.2, 0.5, 0.93])
    assert scale.to_rates(scale.to_values(rates, 1e9)) == pytest.approx(rates)
    step = (scale.to_values(rates + 1e-6, 1e9) - scale.to_values(rates - 1e-6, 1e9)) / 2e-6
    assert scale.compute_slopes(rates, 1e9) == pytest.approx(step, rel=1e-5)
    assert np.isfinite(scale.to_values([0.0, 1.0], [104, 104])).all()
    assert 0 <= scale.to_rates(-50.0) < 0.05  # below what the power can say


def test_logits_by_hand():
    assert Scale().to_values([0.0, 1.0], [104, 104]) == pytest.approx([-math.log(209), math.log(209)])


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_scale_is_found_that_the_rates_were_made_on(power):
    features, _, seen = draw_task(7, 120, noise=0.1, joint=0.0)
    rates = Scale(power).to_rates(1.5 + 0.3 * seen if power else 0.6 * seen)
    assert fit_rates(features, rates, 1e6)[1] == Scale(power)
