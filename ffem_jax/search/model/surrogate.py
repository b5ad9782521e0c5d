"""Predicts the accuracy of untrained networks, with intervals, from trained ones: a Gaussian process. NumPy only.

The kernel is a sum of three parts: the effect of each choice alone (additive ridge regression on coded choices),
interactions between choices, and the effect of the logarithm of the cost. Restricted likelihood chooses their weights;
leaving each network out sets the width of the intervals.

Notation, for n known points, m new points, d features and k costs:

| symbol     | in the code        | meaning                                                       | shape  | unit      |
|------------|--------------------|---------------------------------------------------------------|--------|-----------|
| X, X*      | features           | coded choices (`encoding.embed_codes`); every row has norm 1  | [n, d] | 1         |
| C, C*      | costs              | log costs, standardised to mean 0 and deviation 1             | [n, k] | 1         |
| y          | values             | observed values, on an unbounded scale (`Scale`)              | [n]    | y         |
| t          | counts             | number of trainings that each value averages (`tests`)        | [n]    | 1         |
| s          | similarity         | X X*^T: the share of choices two points have in common        | [n, m] | 0 to 1    |
| w          | interaction_weight | weight of the interactions between choices                    | scalar | 1         |
| l          | length_scale       | the drop of s over which that decays to 1/e                   | scalar | of s      |
| c          | cost               | weight of the effect of the costs                             | scalar | 1         |
| K          | covariance         | s + w exp((s - 1) / l) + c C C*^T                             | [n, m] | sigma^2   |
| sigma^2    | variance           | the variance that 1 in K stands for                           | scalar | y^2       |
| nu         | noise              | variance of one training around its network's mean            | scalar | sigma^2   |
| r          | _root              | sqrt(t); rows are scaled by it, so that nu is the same in all | [n]    | 1         |
| lambda     | eigenvalues        | of r K r^T; one decomposition serves every nu tried           | [n]    | sigma^2   |
| U          | eigenvectors       | its eigenvectors, one per column                              | [n, n] | 1         |
| A          | _inverse           | (K + nu diag(1/t))^-1                                         | [n, n] | 1/sigma^2 |
| mu         | mean               | generalised least squares: (1^T A y) / (1^T A 1)              | scalar | y         |
| A 1        | _ones              | row sums of A, for the uncertainty of mu                      | [n]    | 1/sigma^2 |
| 1^T A 1    | _certainty         | the inverse variance of mu                                    | scalar | 1/sigma^2 |
| A (y - mu) | _weights           | a prediction is mu + K* times these                           | [n]    | y/sigma^2 |

On NAS-Bench-Macro (results/search_quality/surrogates.md) it orders unseen networks better than random forests and
gradient boosting, and its 90 % intervals contain 86 to 90 % of single trainings. It chooses its scale, from logits to
odds, by likelihood: a percentage point of accuracy at 90 % is worth several at 60 %.
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
# Candidate noise variances, in multiples of the variance of the kernel's additive part.
NOISES = np.geomspace(1e-4, 30, 23)


class SurrogateError(FfemError):
    """Raised if no surrogate can be fitted to the data. The message is one line and says what to do."""


@dataclass(frozen=True)
class Kernel:
    """The covariance of two points of similarity s, in 0 to 1, and costs c and d (standardised logarithms).

    It is s + interaction_weight * exp((s - 1) / length_scale) + cost * c d.

    Args:
        interaction_weight: the weight of interactions between choices; 0 makes the model additive in the choices.
        length_scale: of that part. Below 1 / number of choices, a single differing value decorrelates two points.
        cost: the weight of the costs' linear effect.
    """

    interaction_weight: float = 0.0
    length_scale: float = 0.5
    cost: float = 0.0

    def compute(self, a: np.ndarray, b: np.ndarray, costs_a: np.ndarray, costs_b: np.ndarray) -> np.ndarray:
        """Return the covariances [point of a, point of b] for features a and b and their costs [point, cost]."""
        similarity = a @ b.T
        values = similarity.copy()
        if self.interaction_weight:
            values += self.interaction_weight * np.exp((similarity - 1) / self.length_scale)
        return values + self.cost * (costs_a @ costs_b.T) if self.cost else values

    def compute_variance(self, costs: np.ndarray) -> np.ndarray:
        """Return the covariance of each point with itself, [point]."""
        return 1 + self.interaction_weight + self.cost * (costs**2).sum(axis=1)


ADDITIVE = (Kernel(),)
KERNELS = tuple(
    Kernel(interaction_weight, length_scale, cost)
    for (interaction_weight, length_scale), cost in itertools.product(
        [(0.0, 0.5), *itertools.product((0.3, 3.0), (0.2, 0.6, 2.0))], (0.0, 1.0)
    )
)


class Surrogate:
    """A fitted Gaussian process: `predict` returns means and deviations, `left_out` its error on the known points.

    Args:
        features: [point, feature], from `encoding.embed_codes`.
        values: [point], on an unbounded scale; for rates see `fit_rates`.
        tests: [point], the number of trainings that each value averages; None is one each.
        costs: [point, cost], positive; or None.
        kernels: the candidates; the one with the highest restricted likelihood is used.

    Raises:
        SurrogateError: if there are fewer than 8 points, or a value is not finite.

    References:
        Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5.
        Dubrule, Mathematical Geology 15 (1983), for leaving one out.
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
            raise SurrogateError(f"{len(values)} networks are too few to fit a model to; train {FEWEST} or more")
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
        # Rows are scaled by it, so that the noise is the same in all of them.
        self._root = np.sqrt(counts)
        best = -math.inf
        for kernel in kernels:
            covariance = kernel.compute(self.features, self.features, self.costs, self.costs).astype(np.float64)
            eigenvalues, eigenvectors = np.linalg.eigh(covariance * np.outer(self._root, self._root))
            for noise, found in zip(NOISES, self._try_noises(eigenvalues, eigenvectors, values), strict=True):
                if found[0] > best:
                    best, (_, mean, variance) = found[0], found
                    chosen = kernel, eigenvalues, eigenvectors, noise
        self.likelihood = best  # restricted, in logarithms
        self.kernel, eigenvalues, eigenvectors, self.noise = chosen
        self.mean, self.variance, self.values = float(mean), float(variance), values
        spread = np.maximum(eigenvalues, 0) + self.noise
        inverse = (eigenvectors / spread) @ eigenvectors.T
        ones = self._root
        self._inverse = inverse * np.outer(self._root, self._root)
        self._ones = inverse @ ones * self._root
        self._certainty = float(ones @ inverse @ ones)
        self._weights = self._inverse @ (values - self.mean)

    def _try_noises(
        self, eigenvalues: np.ndarray, eigenvectors: np.ndarray, values: np.ndarray
    ) -> Iterator[tuple[float, float, float]]:
        """Yield, for each of NOISES, the restricted log likelihood, and the mean and the variance that maximise it."""
        ones, seen = eigenvectors.T @ self._root, eigenvectors.T @ (self._root * values)
        free = len(values) - 1
        for noise in NOISES:
            spread = np.maximum(eigenvalues, 0) + noise
            certainty = (ones**2 / spread).sum()
            mean = (ones * seen / spread).sum() / certainty
            variance = ((seen - mean * ones) ** 2 / spread).sum() / free
            variance = max(float(variance), 1e-12)  # in case all values are equal
            likelihood = -0.5 * (free * math.log(variance) + np.log(spread).sum() + math.log(certainty))
            yield likelihood, mean, variance

    def predict(self, features: npt.ArrayLike, costs: npt.ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the standard deviation of each point's value, on the scale of `values`.

        Args:
            features: [point, feature].
            costs: [point, cost], positive, if the model was fitted with costs.

        Returns:
            Two arrays [point]. The deviation is that of a network's mean; a single training adds `noise_deviation`.
        """
        features = np.asarray(features, dtype=np.float32)
        scaled = self._costs.scale(costs, len(features))
        means, deviations = np.empty(len(features)), np.empty(len(features))
        inverse = self._inverse.astype(np.float32)
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            covariance = self.kernel.compute(features[part], self.features, scaled[part], self.costs)
            means[part] = self.mean + covariance @ self._weights
            known = np.einsum("ij,ij->i", covariance @ inverse, covariance)
            # The mean itself is estimated, which adds its uncertainty.
            mean_part = (1 - covariance @ self._ones) ** 2 / self._certainty
            left = self.kernel.compute_variance(scaled[part]) - known + mean_part
            deviations[part] = np.sqrt(self.variance * np.maximum(left, 1e-6))
        return means, deviations

    def predict_means(self, features: npt.ArrayLike, costs: npt.ArrayLike | None = None) -> np.ndarray:
        """Return only the means of `predict`, [point], in a fraction of the time."""
        features = np.asarray(features, dtype=np.float32)
        scaled, weights = self._costs.scale(costs, len(features)), self._weights.astype(np.float32)
        means = np.empty(len(features))
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            means[part] = self.kernel.compute(features[part], self.features, scaled[part], self.costs) @ weights
        return means + self.mean

    def compute_contrasts(self, differences: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the differences between the values of two points, from their features; for an additive kernel.

        The deviation has two parts: the uncertainty that the prior leaves, and the noise, estimated from each known
        network's residual when it is left out. Interactions are noise here, which is larger if some networks are far
        from additive.

        Args:
            differences: [contrast, feature], each between two points with the same cost.

        Returns:
            The means and the standard deviations, both [contrast].

        References:
            MacKinnon and White, J. Econometrics 29 (1985): the estimator HC3.
        """
        assert not self.kernel.interaction_weight
        differences = np.asarray(differences, dtype=np.float64)
        covariance = differences @ self.features.T.astype(np.float64)
        ones = covariance @ self._ones
        known = np.einsum("ij,ij->i", covariance @ self._inverse, covariance)
        left = (differences**2).sum(axis=1) - known + ones**2 / self._certainty
        # The weight of each known value in each contrast.
        shares = covariance @ self._inverse - np.outer(ones, self._ones) / self._certainty
        of_noise = (shares**2) @ (self.noise / self._root**2)
        residuals = self.values - self.left_out[0]
        variances = self.variance * np.maximum(left - of_noise, 0) + shares**2 @ residuals**2
        return shares @ self.values, np.sqrt(variances)

    @property
    def noise_deviation(self) -> float:
        """The fitted standard deviation of one training around its network's mean."""
        return math.sqrt(self.variance * self.noise)

    @cached_property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Each known value predicted from all others, and the standard deviation of that prediction, both [point].

        Kernel and noise are those chosen from all points. The closed form needs no further fit.
        """
        projection = self._inverse - np.outer(self._ones, self._ones) / self._certainty
        diagonal = np.maximum(np.diag(projection), 1e-12)
        residuals = (projection @ self.values) / diagonal
        return self.values - residuals, np.sqrt(self.variance / diagonal)

    def compute_reach(self, confidence: float = 0.9) -> float:
        """Return the half-width of an interval of this confidence, in standard deviations; at least the normal one.

        An interval of this width would have contained that share of the networks left out, plus one.

        References:
            Vovk et al., Algorithmic Learning in a Random World (2005): split conformal prediction.
        """
        from statistics import NormalDist

        guesses, deviations = self.left_out
        scores = np.sort(np.abs(self.values - guesses) / deviations)
        rank = math.ceil(confidence * (len(scores) + 1)) - 1
        normal = NormalDist().inv_cdf((1 + confidence) / 2)
        return max(normal, float(scores[min(rank, len(scores) - 1)]))


@contextlib.contextmanager
def use_one_core() -> Iterator[None]:
    """Restrict matrix products to one core. If trainings keep all cores busy, threads that wait for each other's share
    of a small product take a minute; on an idle machine they take a tenth of a second."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


class Standard:
    """Standardises the logarithms of costs: those of the known points get mean 0 and deviation 1."""

    def __init__(self, costs: npt.ArrayLike | None, count: int) -> None:
        logs = self._take_logs(costs, count)
        self.middle = logs.mean(axis=0) if count else np.zeros(logs.shape[1])
        deviation = logs.std(axis=0)
        self.deviation = np.where(deviation > 1e-9, deviation, 1.0)

    def scale(self, costs: npt.ArrayLike | None, count: int) -> np.ndarray:
        """Return the standardised logarithms, [point, cost]; no columns if there are no costs."""
        return ((self._take_logs(costs, count) - self.middle) / self.deviation).astype(np.float32)

    def _take_logs(self, costs: npt.ArrayLike | None, count: int) -> np.ndarray:
        if costs is None:
            return np.empty((count, 0))
        logs = np.log(np.asarray(costs, dtype=np.float64))
        return logs[:, None] if logs.ndim == 1 else logs


@dataclass(frozen=True)
class Scale:
    """Maps rates in 0 to 1 to an unbounded scale, on which noise is about equal: a Box-Cox power of their odds.

    Power 0 is the logit. A higher power gives more of the scale to high rates.
    """

    power: float = 0.0

    def to_values(self, rates: npt.ArrayLike, tested: npt.ArrayLike = 1000) -> np.ndarray:
        """Return (odds ** power - 1) / power, or log odds, with odds = rate / (1 - rate).

        Half a count is added to the hits and to the misses among `tested` images (Haldane 1956), so that all values are
        finite.
        """
        odds = _compute_odds(rates, tested)
        return (odds**self.power - 1) / self.power if self.power else np.log(odds)

    def to_rates(self, values: npt.ArrayLike) -> np.ndarray:
        """Return the inverse of `to_values`, in 0 to 1."""
        values = np.asarray(values, dtype=np.float64)
        if not self.power:
            return 1 / (1 + np.exp(-values))
        odds = np.maximum(1 + self.power * values, 0) ** (1 / self.power)
        return odds / (1 + odds)

    def compute_slopes(self, rates: npt.ArrayLike, tested: npt.ArrayLike = 1000) -> np.ndarray:
        """Return the derivative of values with respect to rates, [rate]."""
        odds = _compute_odds(rates, tested)
        return odds ** (self.power - 1) * (1 + odds) ** 2


def _compute_odds(rates: npt.ArrayLike, tested: npt.ArrayLike) -> np.ndarray:
    rates, images = np.asarray(rates, dtype=np.float64), np.asarray(tested, dtype=np.float64)
    return (rates * images + 0.5) / ((1 - rates) * images + 0.5)


# Steeper scales order networks as well, but their 90 % intervals contained only 80 % (NAS-Bench-Macro).
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
    """Return a surrogate of rates, and its scale: the one on which the rates are most likely.

    Args:
        rates: [point], in 0 to 1.
        tested: [point] or one number, the number of images behind each rate.
        features, tests, costs, kernels: as in `Surrogate`.
        scales: the candidates.

    Raises:
        SurrogateError: as `Surrogate` does.

    References:
        Box and Cox, J. R. Stat. Soc. B 26 (1964) 211; Snelson et al., Warped Gaussian Processes, NIPS 2003.
    """
    best, found = -math.inf, None
    for scale in scales:
        model = Surrogate(features, scale.to_values(rates, tested), tests, costs, kernels)
        likelihood = model.likelihood + float(np.log(scale.compute_slopes(rates, tested)).sum())
        if found is None or likelihood > best:
            best, found = likelihood, (model, scale)
    assert found
    return found
