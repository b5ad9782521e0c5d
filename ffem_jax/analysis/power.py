"""The differences that a comparison can detect: the rule of `compare`, applied to simulated results of a design.

Both levels are tested on the same tests. A test that exactly one of them gets correct is discordant. The number of
discordant tests, and how they cluster by image, person and training run, determine how small a difference is
detectable. `estimate_chance` measures them in records; `find_smallest_difference` searches for the true difference that
is detected with a given power.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ffem_jax.analysis.comparability import Run, identify
from ffem_jax.analysis.comparison import SIGNIFICANT
from ffem_jax.analysis.pooling import names_people
from ffem_jax.metrics.paired import compute_sign_flip_p_value
from ffem_jax.records.record import TrialRecord

POWER = 0.8
DRAWS = 400
# Numbers drawn at a time, so that large designs fit into memory.
CHUNK = 4_000_000
# With fewer discordant tests, the normal approximation of the exact test is too coarse.
EXACT_BELOW = 40
# Maximum number of pairs of trainings examined per set of tests.
PAIRS_AT_MOST = 300


@dataclass(frozen=True)
class Chance:
    """How the results of two networks differ by chance.

    Args:
        discordance: the share of tests that exactly one of the two gets correct, in 0 to 1.
        by_image: the correlation of an image's differences between two training runs, in 0 to 1.
        by_person: the correlation of the differences of two images of one person, in 0 to 1.
        run_sd: the standard deviation of the difference between pairs of trainings, beyond what single images explain.
        source: where these numbers are from, as the end of a sentence.
    """

    discordance: float
    by_image: float = 0.0
    by_person: float = 0.0
    run_sd: float = 0.0
    source: str = ""


# For networks of this family on LFW, results/paper has 17 % between two seeds and 27 % between two networks.
ASSUMED = Chance(
    discordance=0.25,
    by_image=0.2,
    by_person=0.02,
    run_sd=0.005,
    source="assumed, because there are no records of these faces: two levels disagree on 25 % of the tests, as "
    "networks did in results/paper",
)


@dataclass(frozen=True)
class Design:
    """The tests of one row of a comparison.

    Args:
        runs, trainings, images: int [test], the training seed, the pair of trainings and the image of each test of both
            levels, ordered by image. A seed has as many pairs of trainings as the row has folds and contexts.
        people: int [image], the person on it.
        rows: number of table rows in Holm's correction.
        clustered: whether the records name people, so that the test flips signs per person.
        few: whether `runs` are pretrainings, whose small number is taken into account.
    """

    runs: np.ndarray
    trainings: np.ndarray
    images: np.ndarray
    people: np.ndarray
    rows: int = 1
    clustered: bool = False
    few: bool = False


def make_design(
    *,
    runs: int,
    tests: int,
    images: int,
    folds: int = 1,
    repeats: int = 1,
    people: Sequence[int] | np.ndarray = (),
    rows: int = 1,
    clustered: bool = False,
    few: bool = False,
) -> Design:
    """Return the design of a row of which only the numbers are known.

    Args:
        runs: number of training seeds, each on its split.
        tests: number of tests over all runs.
        images: number of distinct images.
        folds: number of folds that a run's images are divided into, each with its own training.
        repeats: number of times that a run tests an image: once per context that the row pools.
        people: [image], the person on it; with another length, people are sampled from it. Empty if each image is of
            another person.
        rows, clustered: see `Design`.
        few: whether the runs are pretrainings, each with `repeats` trainings that share all of its variance.
    """
    random = np.random.default_rng(0)
    own = min(images, max(1, round(tests / (runs * repeats))))
    if own * runs <= images:
        chosen = random.permutation(images)[: own * runs].reshape(runs, own)
    else:
        chosen = np.stack([random.permutation(images)[:own] for _ in range(runs)])
    whose = np.asarray(people if len(people) else np.arange(images))
    if len(whose) != images:
        whose = np.sort(random.choice(whose, images))
    places = np.broadcast_to(chosen[:, None, :], (runs, repeats, own)).ravel()
    run = np.repeat(np.arange(runs), repeats * own)
    folded = np.tile(np.arange(own) * folds // own, runs * repeats)
    training = np.repeat(np.arange(runs * repeats), own) * folds + folded
    training = run if few else training
    order = np.argsort(places, kind="stable")
    numbers = np.unique(whose, return_inverse=True)[1]
    return Design(run[order], training[order], places[order], numbers, rows, clustered, few)


# ---------------------------------------------------------------------------------- simulation


def find_smallest_difference(
    design: Design, chance: Chance, *, power: float = POWER, draws: int = DRAWS, seed: int = 0
) -> float | None:
    """Return the smallest true difference, in 0 to 1, that is significant with probability `power`.

    None if no difference is, because there are too few tests or too many rows. The same random numbers are used for
    each candidate, so the result is reproducible. Its Monte Carlo error corresponds to about 2 points of power.
    """
    if len(design.runs) * draws > 10 * CHUNK:
        draws = max(100, 10 * CHUNK // len(design.runs))
    low, high = 0.0, 1.0
    if compute_power(design, chance, high, draws=draws, seed=seed) < power:
        return None
    normal = NormalDist()
    threshold = normal.inv_cdf(1 - SIGNIFICANT / (2 * design.rows))
    wanted = threshold + normal.inv_cdf(power)
    difference = min(0.5, wanted * math.sqrt(2 * chance.discordance / len(design.runs)))
    while high - low > 5e-4:
        found = compute_power(design, chance, difference, draws=draws, seed=seed)
        if abs(found - power) <= 1 / draws:
            return difference
        low, high = (difference, high) if found < power else (low, difference)
        # Power rises roughly like a normal distribution, whose width follows from one value.
        reached = threshold + normal.inv_cdf(min(max(found, 0.02), 0.98))
        guess = difference * wanted / max(reached, 0.1)
        difference = guess if low < guess < high else (low + high) / 2
    return high


def compute_power(design: Design, chance: Chance, difference: float, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Return how often `compare` would call a true `difference` (in 0 to 1) significant, in its direction.

    As in `compare`, the test flips signs per image, or per person if the records name people. It is corrected for all
    rows, assuming that only this one differs, and the interval must exclude 0. If differences cluster by person, the
    interval resamples people.
    """
    random = np.random.default_rng(seed)
    size = max(1, CHUNK // len(design.runs))
    found, left = 0, draws
    while left > 0:
        drawn = min(size, left)
        found += int(_decide(design, chance, _draw(design, chance, difference, drawn, random)).sum())
        left -= drawn
    return found / draws


def _draw(design: Design, chance: Chance, difference: float, draws: int, random: np.random.Generator) -> np.ndarray:
    """Draw differences, int8 [draw, test]: 1 if only the second level is correct, -1 if only the first is, else 0."""
    count, images, trainings = len(design.runs), len(design.people), int(design.trainings.max()) + 1
    chances = random.random((draws, count), dtype=np.float32)
    # A test may copy the draw shared by all tests of its image or person. The correlation of two tests is the
    # probability that both copy.
    by_person = math.sqrt(chance.by_person)
    by_image = min(math.sqrt(max(0.0, chance.by_image - chance.by_person)), 1 - by_person)
    if by_image or by_person:
        copied = random.random((draws, count), dtype=np.float32)
        of_image = random.random((draws, images), dtype=np.float32)
        of_person = random.random((draws, int(design.people.max()) + 1), dtype=np.float32)
        chances = np.where(copied < by_image, of_image[:, design.images], chances)
        if by_person:
            chances = np.where(copied > 1 - by_person, of_person[:, design.people[design.images]], chances)
    shifts = np.clip(difference + chance.run_sd * random.standard_normal((draws, trainings)), -1, 1)
    discordance = np.maximum(chance.discordance, np.abs(shifts))
    better = ((discordance + shifts) / 2).astype(np.float32)[:, design.trainings]
    worse = (1 - (discordance - shifts) / 2).astype(np.float32)[:, design.trainings]
    return (chances < better).astype(np.int8) - (chances > worse).astype(np.int8)


def _decide(design: Design, chance: Chance, drawn: np.ndarray) -> np.ndarray:
    """Return, bool [draw], whether the difference is significant in favour of the second level."""
    count, images, runs = len(design.runs), len(design.people), int(design.runs.max()) + 1
    by_image = _sum(drawn, design.images, images)
    mean = by_image.sum(axis=1) / count
    units, sums = design.images, by_image
    if chance.by_person or design.clustered:
        units = design.people[design.images]
        sums = _sum(by_image, design.people, int(design.people.max()) + 1)
    normal = NormalDist().inv_cdf(1 - SIGNIFICANT / 2)
    variance = normal**2 * _compute_variance(sums, np.bincount(units, minlength=sums.shape[1]), mean)
    if runs > 1:
        by_run = _sum(drawn, design.runs, runs)
        own = _compute_variance(by_run, np.bincount(design.runs, minlength=runs), mean)
        variance = variance + _find_reach(runs, design.few) ** 2 * own
    outside = mean > np.sqrt(variance)
    return outside & (_compute_p_values(sums if design.clustered else by_image) * design.rows < SIGNIFICANT)


def _find_reach(runs: int, few: bool) -> float:
    """Return the half-width of the interval due to runs, in bootstrap standard deviations."""
    if not few:
        return NormalDist().inv_cdf(1 - SIGNIFICANT / 2)
    from scipy.special import stdtrit

    return float(stdtrit(runs - 1, 1 - SIGNIFICANT / 2)) * math.sqrt(runs / (runs - 1))


def _sum(drawn: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Return sums [draw, group] of `drawn` [draw, test]."""
    if (np.diff(groups) < 0).any():
        order = np.argsort(groups, kind="stable")
        groups, drawn = groups[order], drawn[:, order]
    present, starts = np.unique(groups, return_index=True)
    sums = np.zeros((len(drawn), count), np.int64)
    sums[:, present] = np.add.reduceat(drawn, starts, axis=1, dtype=np.int64)
    return sums


def _compute_variance(sums: np.ndarray, counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the variance [draw] of the mean under a bootstrap over the groups."""
    return ((sums - mean[:, None] * counts) ** 2).sum(axis=1) / counts.sum() ** 2


def _compute_p_values(totals: np.ndarray) -> np.ndarray:
    """Return two-sided p-values [draw] of the sign-flip test by image; exact if few images differ."""
    sums, squares = np.abs(totals.sum(axis=1)), np.maximum((totals**2).sum(axis=1), 1)
    # Possible sums are 2 apart, hence the continuity correction of 1.
    scores = np.maximum(sums - 1, 0) / np.sqrt(squares)
    normal = NormalDist()
    values = np.array([2 * (1 - normal.cdf(float(score))) for score in scores])
    known: dict[tuple[int, ...], float] = {}  # the p-value depends only on the sizes of the totals and their sum
    for row in np.flatnonzero(np.abs(totals).sum(axis=1) < EXACT_BELOW):
        kind = int(sums[row]), *np.bincount(np.abs(totals[row]))[1:].tolist()
        if kind not in known:
            known[kind] = compute_sign_flip_p_value(totals[row])
        values[row] = known[kind]
    return values


# ---------------------------------------------------------------------------------- from records


@dataclass(frozen=True)
class _Answers:
    network: str
    run: Run
    hits: np.ndarray


def estimate_chance(
    records: Sequence[TrialRecord], people: Mapping[tuple[int, ...], np.ndarray] | None = None
) -> Chance | None:
    """Estimate the chance variation in `records`; None if no two trainings share their tests.

    Compares two networks with one seed. If there is only one network, compares two of its seeds, which differ on fewer
    tests.

    Args:
        people: test images -> the person on each, int [image]. Without it, and if the records do not name people,
            clustering by person is unknown and set to 0.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[_Answers]] = defaultdict(list)
    named: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
    for record in records:
        if record.status == "done" and record.hits and len(record.hits) == len(record.test_images):
            hits = (np.frombuffer(record.hits.encode(), np.uint8) == ord("1")).astype(np.int8)
            faces = record.pictures_fingerprint or record.data_fingerprint
            place, identity = (faces, tuple(record.test_images)), identify(record)
            groups[place].append(_Answers(identity.network, identity.run, hits))
            if names_people(record):
                named[place] = np.asarray(record.test_identities)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)  # what -> (value, weight)
    for place, answers in groups.items():
        whose = named.get(place, (people or {}).get(place[1]))
        _measure_pairs(answers, whose, found)
    levels = len(found["levels"])
    kind = "levels" if levels else "seeds"
    if not found[kind]:
        return None
    discordance, by_person = _average(found[kind]), _average(found[f"person {kind}"])
    noise = _average(found["seeds"]) / 2 if found["seeds"] else 0.0
    beyond = _average([(spread - noise / tests, 1.0) for spread, tests in found["spread"]])
    count = len(found[kind])
    what = "two networks with the same seed" if levels else "two seeds of one network"
    return Chance(
        discordance=discordance,
        by_image=min(1.0, max(0.0, _average(found["image"]))),
        by_person=min(1.0, max(0.0, by_person)),
        run_sd=math.sqrt(max(0.0, 2 * beyond)),
        source=f"measured in records: {what} disagree on {100 * discordance:.1f} % of the tests ({count:,} pairs)",
    )


def _measure_pairs(
    answers: Sequence[_Answers], whose: np.ndarray | None, found: dict[str, list[tuple[float, float]]]
) -> None:
    """Add to `found` the estimates from the trainings that share one set of tests."""
    by_network: dict[str, dict[Run, np.ndarray]] = defaultdict(dict)
    for answer in answers:
        by_network[answer.network][answer.run] = answer.hits
    for own in by_network.values():
        for first, second in itertools.islice(itertools.combinations(own.values(), 2), PAIRS_AT_MOST):
            _add_pair(second - first, whose, "seeds", found)
        if len(own) > 1:
            rates = [hits.mean() for hits in own.values()]
            found["spread"].append((float(np.var(rates, ddof=1)), float(len(next(iter(own.values()))))))
    pairs = list(itertools.combinations(by_network.values(), 2))
    if len(pairs) > PAIRS_AT_MOST:
        chosen = np.random.default_rng(0).choice(len(pairs), PAIRS_AT_MOST, replace=False)
        pairs = [pairs[index] for index in chosen]
    for one, other in pairs:
        differences = [other[run] - one[run] for run in sorted(one.keys() & other.keys())]
        for difference in differences:
            _add_pair(difference, whose, "levels", found)
        for first, second in itertools.combinations(differences, 2):
            if first.any() and second.any():
                centred = (first - first.mean()) * (second - second.mean())
                found["image"].append((float(centred.mean() / (first.std() * second.std())), 1.0))


def _add_pair(
    difference: np.ndarray, whose: np.ndarray | None, kind: str, found: dict[str, list[tuple[float, float]]]
) -> None:
    found[kind].append((float(np.abs(difference).mean()), float(len(difference))))
    if whose is None or not difference.any():
        return
    centred = difference - difference.mean()
    sums, counts = np.bincount(whose, centred), np.bincount(whose)
    pairs = (counts * (counts - 1)).sum()
    if pairs:
        together = ((sums**2).sum() - (centred**2).sum()) / pairs
        found[f"person {kind}"].append((float(together / centred.var()), float(pairs)))


def _average(values: Sequence[tuple[float, float]]) -> float:
    """Return the weighted mean of (value, weight) pairs; 0 if empty."""
    weight = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / weight if weight else 0.0
