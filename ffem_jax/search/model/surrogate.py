"""What untrained networks would reach, with how sure that is, from those that were trained. NumPy only.

A Gaussian process whose kernel is a sum: what each choice does by itself (additive ridge regression on coded choices),
what choices do together, and what the logarithm of the cost does. The weights of the three are chosen by restricted
likelihood, the width of the intervals by leaving each network out.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ffem_jax.errors import FfemError

FEWEST = 8
CHUNK = 20_000  # points predicted at once
# Of the noise, in multiples of the variance that the additive part of the kernel stands for.
NOISES = np.geomspace(1e-4, 30, 23)


class SurrogateError(FfemError):
    """Data that no surrogate can be fitted to. The message is one line and says what to do."""


@dataclass(frozen=True)
class Kernel:
    """The shape of the covariance of two points that are alike by s, in 0 to 1, and cost c and d (standardised logs).

    s + together * exp((s - 1) / reach) + cost * c d. together: the weight of what choices do jointly. reach: how far
    that carries; below 1 / number of choices a single other value makes two points strangers.
    """

    together: float = 0.0
    reach: float = 0.5
    cost: float = 0.0

    def compute(self, a: np.ndarray, b: np.ndarray, costs_a: np.ndarray, costs_b: np.ndarray) -> np.ndarray:
        """The covariances [point of a, point of b] of features a and b and their costs [point, cost]."""
        alike = a @ b.T
        values = alike.copy()
        if self.together:
            values += self.together * np.exp((alike - 1) / self.reach)
        return values + self.cost * (costs_a @ costs_b.T) if self.cost else values

    def compute_variance(self, costs: np.ndarray) -> np.ndarray:
        """The covariance of each point with itself, [point]."""
        return 1 + self.together + self.cost * (costs**2).sum(axis=1)


ADDITIVE = (Kernel(),)
KERNELS = tuple(
    Kernel(together, reach, cost)
    for (together, reach), cost in itertools.product(
        [(0.0, 0.5), *itertools.product((0.3, 3.0), (0.2, 0.6, 2.0))], (0.0, 1.0)
    )
)


class Surrogate:
    """A fitted model: `predict` says what points would reach, `left_out` how well it does on those it knows.

    features: [point, feature] of `encoding.embed_codes`. values: [point], on a scale without ends; for
        rates see `fit_rates`. tests: how many trainings each value is the mean of.
    costs: [point, cost] or None, positive.
    kernels: what is chosen among; a single one is taken as it is.

    Raises SurrogateError for fewer than 8 points or a value that is not finite.
    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006); Dubrule, Mathematical Geology 15
    (1983), for leaving one out.
    """

    def __init__(
        self,
        features: npt.ArrayLike,
        values: npt.ArrayLike,
        tests: npt.ArrayLike | None = None,
        costs: npt.ArrayLike | None = None,
        kernels: tuple[Kernel, ...] = KERNELS,
    ) -> None:
        self.features, values = np.asarray(features, dtype=np.float32), np.asarray(values, dtype=np.float64)
        if len(values) < FEWEST:
            raise SurrogateError(f"{len(values)} networks are too few to predict others from; train {FEWEST} or more")
        if not np.isfinite(values).all():
            raise SurrogateError("a value to learn from is not finite; leave such networks out")
        self._costs = Standard(costs, len(values))
        self.costs = self._costs.scale(costs, len(values))
        counts = np.ones(len(values)) if tests is None else np.asarray(tests, dtype=np.float64)
        if costs is None:
            kernels = tuple(kernel for kernel in kernels if not kernel.cost)
        with use_one_core():
            self._fit(values, counts, kernels)

    def _fit(self, values: np.ndarray, counts: np.ndarray, kernels: tuple[Kernel, ...]) -> None:
        # Rows are scaled so that the noise is alike in all.
        self._root = np.sqrt(counts)
        best = -math.inf
        for kernel in kernels:
            covariance = kernel.compute(self.features, self.features, self.costs, self.costs).astype(np.float64)
            levels, basis = np.linalg.eigh(covariance * np.outer(self._root, self._root))
            for noise, found in zip(NOISES, self._try(levels, basis, values), strict=True):
                if found[0] > best:
                    best, (_, mean, variance), chosen = found[0], found, (kernel, levels, basis, noise)
        self.likelihood = best  # restricted, in logarithms
        self.kernel, levels, basis, self.noise = chosen
        self.mean, self.variance, self.values = float(mean), float(variance), values
        spread = np.maximum(levels, 0) + self.noise
        inverse = (basis / spread) @ basis.T
        ones = self._root
        self._inverse = inverse * np.outer(self._root, self._root)
        self._ones = inverse @ ones * self._root
        self._certainty = float(ones @ inverse @ ones)
        self._weights = self._inverse @ (values - self.mean)

    def _try(self, levels: np.ndarray, basis: np.ndarray, values: np.ndarray) -> Iterator[tuple[float, float, float]]:
        """For each of NOISES: the restricted log likelihood, the mean and the variance that maximise it."""
        ones, seen = basis.T @ self._root, basis.T @ (self._root * values)
        free = len(values) - 1
        for noise in NOISES:
            spread = np.maximum(levels, 0) + noise
            certainty = (ones**2 / spread).sum()
            mean = (ones * seen / spread).sum() / certainty
            variance = ((seen - mean * ones) ** 2 / spread).sum() / free
            variance = max(float(variance), 1e-12)  # values that are all equal
            likelihood = -0.5 * (free * math.log(variance) + np.log(spread).sum() + math.log(certainty))
            yield likelihood, mean, variance

    def predict(self, features: npt.ArrayLike, costs: npt.ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation, both [point], of what the points are; add the noise's for a training."""
        features = np.asarray(features, dtype=np.float32)
        scaled = self._costs.scale(costs, len(features))
        means, deviations = np.empty(len(features)), np.empty(len(features))
        inverse = self._inverse.astype(np.float32)
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            covariance = self.kernel.compute(features[part], self.features, scaled[part], self.costs)
            means[part] = self.mean + covariance @ self._weights
            known = np.einsum("ij,ij->i", covariance @ inverse, covariance)
            # What is not known of the mean itself comes on top.
            mean_part = (1 - covariance @ self._ones) ** 2 / self._certainty
            left = self.kernel.compute_variance(scaled[part]) - known + mean_part
            deviations[part] = np.sqrt(self.variance * np.maximum(left, 1e-6))
        return means, deviations

    def predict_means(self, features: npt.ArrayLike, costs: npt.ArrayLike | None = None) -> np.ndarray:
        """The means of `predict` alone, [point], for a fraction of the time."""
        features = np.asarray(features, dtype=np.float32)
        scaled, weights = self._costs.scale(costs, len(features)), self._weights.astype(np.float32)
        means = np.empty(len(features))
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            means[part] = self.kernel.compute(features[part], self.features, scaled[part], self.costs) @ weights
        return means + self.mean

    def compute_contrasts(self, differences: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """By how much the values of two points of these `differences` of features [contrast, feature] and of one cost
        differ: mean and standard deviation, both [contrast]. For a kernel that is additive in the choices.

        The deviation has two parts: what the prior leaves open, and what the noise does, by each known network's
        residual when it is left out (MacKinnon and White's HC3, J. Econometrics 29 (1985)). What choices do only
        together is noise here, and larger where some networks are far from additive.
        """
        assert not self.kernel.together
        differences = np.asarray(differences, dtype=np.float64)
        covariance = differences @ self.features.T.astype(np.float64)
        ones = covariance @ self._ones
        known = np.einsum("ij,ij->i", covariance @ self._inverse, covariance)
        left = (differences**2).sum(axis=1) - known + ones**2 / self._certainty
        # Each contrast is this much of each known value.
        shares = covariance @ self._inverse - np.outer(ones, self._ones) / self._certainty
        of_noise = (shares**2) @ (self.noise / self._root**2)
        residuals = self.values - self.left_out[0]
        variances = self.variance * np.maximum(left - of_noise, 0) + shares**2 @ residuals**2
        return shares @ self.values, np.sqrt(variances)

    @property
    def noise_deviation(self) -> float:
        """The standard deviation of one training around what its network is worth, as fitted."""
        return math.sqrt(self.variance * self.noise)

    @cached_property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Each known value predicted from all others, [point], and the standard deviation of that prediction.

        With kernel and noise as chosen on all. In closed form: no model is fitted again.
        """
        projection = self._inverse - np.outer(self._ones, self._ones) / self._certainty
        diagonal = np.maximum(np.diag(projection), 1e-12)
        residuals = (projection @ self.values) / diagonal
        return self.values - residuals, np.sqrt(self.variance / diagonal)

    def compute_reach(self, confidence: float = 0.9) -> float:
        """How many standard deviations an interval of this confidence takes, so that it would have held that share of
        the networks left out, and one more (split conformal prediction; Vovk et al. 2005); at least a normal's."""
        from statistics import NormalDist

        guesses, deviations = self.left_out
        scores = np.sort(np.abs(self.values - guesses) / deviations)
        rank = math.ceil(confidence * (len(scores) + 1)) - 1
        normal = NormalDist().inv_cdf((1 + confidence) / 2)
        return max(normal, float(scores[min(rank, len(scores) - 1)]))


@contextlib.contextmanager
def use_one_core() -> Iterator[None]:
    """Matrix products on one core: several, each waiting for the others' share of a small one, take a minute where
    trainings keep all of them busy, and a tenth of a second where nobody else is there."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


class Standard:
    """The logarithms of costs, moved and scaled so that those learnt from have mean 0 and deviation 1."""

    def __init__(self, costs: npt.ArrayLike | None, count: int) -> None:
        logs = self._take_logs(costs, count)
        self.middle = logs.mean(axis=0) if count else np.zeros(logs.shape[1])
        deviation = logs.std(axis=0)
        self.deviation = np.where(deviation > 1e-9, deviation, 1.0)

    def scale(self, costs: npt.ArrayLike | None, count: int) -> np.ndarray:
        """The standardised logarithms, [point, cost]; no columns where there are no costs."""
        return ((self._take_logs(costs, count) - self.middle) / self.deviation).astype(np.float32)

    def _take_logs(self, costs: npt.ArrayLike | None, count: int) -> np.ndarray:
        if costs is None:
            return np.empty((count, 0))
        logs = np.log(np.asarray(costs, dtype=np.float64))
        return logs[:, None] if logs.ndim == 1 else logs


@dataclass(frozen=True)
class Scale:
    """Rates in 0 to 1 on a scale on which a step means as much everywhere: Box and Cox's power of their odds.

    power 0 is the logit; the higher, the more of the scale belongs to the high rates.
    """

    power: float = 0.0

    def to_values(self, rates: npt.ArrayLike, tested: npt.ArrayLike = 1000) -> np.ndarray:
        """(odds ** power - 1) / power, or log odds, with odds = rate / (1 - rate).

        Half a hit is added to both sides (Haldane 1956), of as many as were `tested`, so that nothing is infinite.
        """
        odds = _compute_odds(rates, tested)
        return (odds**self.power - 1) / self.power if self.power else np.log(odds)

    def to_rates(self, values: npt.ArrayLike) -> np.ndarray:
        """The inverse of `to_values`, in 0 to 1."""
        values = np.asarray(values, dtype=np.float64)
        if not self.power:
            return 1 / (1 + np.exp(-values))
        odds = np.maximum(1 + self.power * values, 0) ** (1 / self.power)
        return odds / (1 + odds)

    def compute_slopes(self, rates: npt.ArrayLike, tested: npt.ArrayLike = 1000) -> np.ndarray:
        """By how much values grow with rates, [rate]."""
        odds = _compute_odds(rates, tested)
        return odds ** (self.power - 1) * (1 + odds) ** 2


def _compute_odds(rates: npt.ArrayLike, tested: npt.ArrayLike) -> np.ndarray:
    rates, images = np.asarray(rates, dtype=np.float64), np.asarray(tested, dtype=np.float64)
    return (rates * images + 0.5) / ((1 - rates) * images + 0.5)


# Steeper ones order as well, but their intervals held 80 % of what they should hold 90 % of (NAS-Bench-Macro).
SCALES = (Scale(0.0), Scale(0.5), Scale(1.0))


def fit_rates(
    features: npt.ArrayLike,
    rates: npt.ArrayLike,
    tested: npt.ArrayLike = 1000,
    tests: npt.ArrayLike | None = None,
    costs: npt.ArrayLike | None = None,
    kernels: tuple[Kernel, ...] = KERNELS,
    scales: tuple[Scale, ...] = SCALES,
) -> tuple[Surrogate, Scale]:
    """A surrogate of rates [point], each of `tested` images, and the scale that it works on.

    The scale is the one on which the rates are likeliest. Otherwise as `Surrogate`, whose errors it raises.
    Source: Box and Cox, J. R. Stat. Soc. B 26 (1964) 211; Snelson et al., Warped Gaussian Processes, NIPS 2003.
    """
    best, found = -math.inf, None
    for scale in scales:
        model = Surrogate(features, scale.to_values(rates, tested), tests, costs, kernels)
        likelihood = model.likelihood + float(np.log(scale.compute_slopes(rates, tested)).sum())
        if found is None or likelihood > best:
            best, found = likelihood, (model, scale)
    assert found
    return found
