"""Ranks untrained networks from the records of trained ones: accuracy with its interval, size, and reliability.

Listed networks are costed exactly. The cost of the other million is predicted, like their accuracy, and only decides
which are considered.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffem_jax.analysis.agreement import OrderAgreement, measure_agreement
from ffem_jax.analysis.comparability import FrontierError, check_comparable, describe_pretraining, identify_network
from ffem_jax.metrics.ranking import RankAgreement, compute_rank_agreement
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.records.view import read_arch, view_spec
from ffem_jax.search.model.encoding import decode_point, embed_codes, encode_points, sample_codes
from ffem_jax.search.model.surrogate import FEWEST, KERNELS, Scale, Surrogate, SurrogateError, fit_rates
from ffem_jax.search.space import LABELS, Point, SearchSpace, SpaceError, read_value
from ffem_jax.specs.trial import TrialSpec

CONFIDENCE = 0.9
COSTED = 120  # networks with an exact cost, from which the other costs are predicted; recorded ones count
COST_KERNELS = tuple(kernel for kernel in KERNELS if not kernel.cost)
TRIES = 20  # exactly costed networks per listed one, before the list is left short


@dataclass(frozen=True)
class PredictedNetwork:
    """One network, trained or not. Rates are in 0 to 1.

    Args:
        accuracy: the predicted accuracy.
        accuracy_low, accuracy_high: the 90 % prediction interval of one training.
        first_rank, last_rank: the range of its rank among all networks predicted to fit. Only networks whose intervals
            lie entirely above or below are counted: networks with overlapping intervals have no order.
        recorded: the mean accuracy of its trainings; None if it was not trained.
    """

    point: Point
    overrides: tuple[str, ...]
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    first_rank: int
    last_rank: int
    bytes: int
    macs: int
    recorded: float | None


@dataclass(frozen=True)
class Prediction:
    """The best of `ranked` networks, and the reliability of the ranking.

    Args:
        drawn: distinct networks considered.
        whole: whether they are the whole space.
        ranked: networks predicted to fit both caps.
        learnt_from: networks in the records.
        outside: recorded networks outside the space.
        left_out: Kendall's tau between each known accuracy and its prediction from all others.
        covered: the share of known networks inside their 90 % interval when left out.
        cost_error: the typical relative error of a predicted size.
        short: fewer networks fit than were requested.
    """

    networks: tuple[PredictedNetwork, ...]
    drawn: int
    whole: bool
    ranked: int
    learnt_from: int
    outside: int
    left_out: RankAgreement
    covered: float
    agreement: OrderAgreement
    cost_error: float
    cap_mb: float
    precision: str
    cap_mmacs: float
    synthetic: bool
    short: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as nested dicts and lists, ready for JSON."""
        return {**dataclasses.asdict(self), "agreement": self.agreement.to_dict()}


@dataclass(frozen=True)
class Known:
    """The recorded networks in the space; all fields but `base` and `outside` are [network].

    Args:
        firsts: one record per network.
        accuracies, images: means over its trainings.
        tests: its number of trainings.
        base: the spec of one of them.
        outside: the number of recorded networks outside the space.
    """

    points: list[Point]
    firsts: list[TrialRecord]
    accuracies: np.ndarray
    tests: np.ndarray
    macs: np.ndarray
    images: np.ndarray
    base: Mapping[str, Any]
    outside: int


def predict_networks(
    records: Sequence[TrialRecord],
    space: SearchSpace,
    *,
    cap_mb: float = 10.0,
    precision: str = "float32",
    cap_mmacs: float = 0.0,
    top: int = 20,
    count: int = 1_000_000,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Prediction:
    """Rank networks of `space` that fit the caps, from the records of its trained networks.

    Args:
        cap_mb: the cap in MB of 10**6 bytes, as deployed at `precision`.
        cap_mmacs: the cap in millions of MACs per image; 0 is no cap.
        top: how many networks to list.
        count: how many networks to consider.
        seed: the seed of the draw.
        tell: called with lines of progress.

    Raises:
        FrontierError: if the records have several data sets, protocols or recipes.
        SurrogateError: if fewer than `surrogate.FEWEST` networks of the space are trained.
    """
    records = latest_records(records)
    check_comparable(records)
    known = read_known(records, space)
    draw = np.random.default_rng(seed)
    tell(f"drawing networks from the space of {space.size:,}")
    codes = sample_codes(space, count, draw)
    features = embed_codes(space, codes)

    costs = _CostBook(space, known.base, precision)
    costs.learn(records)
    missing = COSTED - len(costs.exact)
    if missing > 0:
        tell(f"tracing {missing} networks to predict the cost of the others")
        costs.trace(codes[draw.permutation(len(codes))[:missing]])
    by_bytes, by_macs = costs.fit()
    log_bytes = by_bytes.predict_means(features)
    limit, macs_limit = math.log(cap_mb * BYTES_PER_MB), math.log(cap_mmacs * 1e6) if cap_mmacs else math.inf
    kept = np.flatnonzero(log_bytes <= limit + _measure_error(by_bytes))
    log_macs = by_macs.predict_means(features[kept])
    near = log_macs <= macs_limit + _measure_error(by_macs)
    kept, log_macs = kept[near], log_macs[near]

    tell(f"predicting {len(kept):,} networks from {len(known.points)}")
    own = embed_codes(space, encode_points(space, known.points))
    model, scale = fit_rates(own, known.accuracies, known.images, known.tests, known.macs)
    means, deviations = model.predict(features[kept], np.exp(log_macs))
    half_widths = model.compute_reach(CONFIDENCE) * np.hypot(deviations, model.noise_deviation)

    guesses, spreads = model.left_out
    held = np.abs(model.values - guesses) <= model.compute_reach(CONFIDENCE) * spreads
    order = np.argsort(-means, kind="stable")
    chosen, complete = _choose_fitting(codes[kept], order, costs, (cap_mb * BYTES_PER_MB, math.exp(macs_limit)), top)
    found = [point for point, _ in chosen]
    exact = model.predict(embed_codes(space, encode_points(space, found)), [macs for _, (_, macs) in chosen])
    fitting = (log_bytes[kept] <= limit) & (log_macs <= macs_limit)
    networks = _describe(
        space, chosen, exact, model, scale, known, (means - half_widths)[fitting], (means + half_widths)[fitting]
    )
    return Prediction(
        networks=tuple(sorted(networks, key=lambda network: -network.accuracy)),
        drawn=len(codes),
        whole=len(codes) == space.size,
        ranked=int(fitting.sum()),
        learnt_from=len(known.points),
        outside=known.outside,
        left_out=compute_rank_agreement(guesses, model.values),
        covered=float(held.mean()),
        agreement=measure_agreement(records),
        cost_error=math.expm1(float(np.median(by_bytes.left_out[1]))),
        cap_mb=cap_mb,
        precision=precision,
        cap_mmacs=cap_mmacs,
        synthetic=any(record.synthetic for record in records),
        short=not complete,
    )


def _measure_error(model: Surrogate) -> float:
    """Return the half-width of the interval of a predicted log cost."""
    return model.compute_reach(CONFIDENCE) * float(np.median(model.left_out[1]))


def _choose_fitting(
    codes: np.ndarray, order: np.ndarray, costs: _CostBook, limits: tuple[float, float], top: int
) -> tuple[list[tuple[Point, tuple[int, int]]], bool]:
    """Return the first `top` distinct networks of `order` whose exact bytes and MACs are within `limits`, with both;
    and whether there are `top` of them or all were tried."""
    chosen: list[tuple[Point, tuple[int, int]]] = []
    seen = set()
    for index in order[: TRIES * top]:
        point = decode_point(costs.space, codes[index])
        network, size, macs = costs.compute(point)
        if network and network not in seen and size <= limits[0] and macs <= limits[1]:
            seen.add(network)
            chosen.append((point, (size, macs)))
        if len(chosen) == top:
            return chosen, True
    return chosen, len(order) <= TRIES * top


def _describe(
    space: SearchSpace,
    chosen: Sequence[tuple[Point, tuple[int, int]]],
    predicted: tuple[np.ndarray, np.ndarray],
    model: Surrogate,
    scale: Scale,
    known: Known,
    lows: np.ndarray,
    highs: np.ndarray,
) -> list[PredictedNetwork]:
    """Return the chosen networks, each with its ranks among all with the intervals `lows` to `highs`, on `scale`."""
    lows, highs = np.sort(lows), np.sort(highs)
    trained = {tuple(point.items()): rate for point, rate in zip(known.points, known.accuracies, strict=True)}
    networks = []
    for (point, (size, macs)), mean, deviation in zip(chosen, *predicted, strict=True):
        half_width = model.compute_reach(CONFIDENCE) * math.hypot(deviation, model.noise_deviation)
        first = 1 + len(lows) - int(np.searchsorted(lows, mean + half_width, side="right"))
        last = len(highs) - int(np.searchsorted(highs, mean - half_width, side="left"))
        accuracy, low, high = (float(scale.to_rates(value)) for value in (mean, mean - half_width, mean + half_width))
        rate = trained.get(tuple(point.items()))
        networks.append(
            PredictedNetwork(
                point=point,
                overrides=tuple(space.to_overrides(point)),
                accuracy=accuracy,
                accuracy_low=low,
                accuracy_high=high,
                first_rank=first,
                last_rank=max(first, last),
                bytes=size,
                macs=macs,
                recorded=None if rate is None else float(rate),
            )
        )
    return networks


# ------------------------------------------------------------------------------- what is known


def read_known(records: Sequence[TrialRecord], space: SearchSpace, purpose: str = "predict others from") -> Known:
    """Return the trained networks of the space.

    Args:
        purpose: what they are read for, as used in an error message: `predict others from`.

    Raises:
        SurrogateError: if there are fewer than FEWEST networks.
        FrontierError: if they have several settings.
    """
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.status == "done" and record.accuracy is not None and record.tested:
            groups[identify_network(record)].append(record)
    rows = [(space.read_point(group[0].spec), group) for group in groups.values()]
    inside = [(point, group) for point, group in rows if point is not None]
    if len(inside) < FEWEST:
        raise SurrogateError(
            f"{len(inside)} trained networks of the space are too few to {purpose}; train {FEWEST} or more "
            f"({len(rows) - len(inside)} others lie outside it)"
        )
    _check_settings([group[0].spec for _, group in inside], space)
    every = [group for _, group in inside]
    return Known(
        points=[point for point, _ in inside],
        firsts=[group[0] for group in every],
        accuracies=np.array([np.mean([r.accuracy or 0.0 for r in group]) for group in every]),
        tests=np.array([len(group) for group in every], dtype=float),
        macs=np.array([group[0].macs or math.nan for group in every], dtype=float),
        images=np.array([np.mean([r.tested or 0 for r in group]) for group in every]),
        base=every[0][0].spec,
        outside=len(rows) - len(inside),
    )


def _check_settings(specs: Sequence[Mapping[str, Any]], space: SearchSpace) -> None:
    """Raise FrontierError if the networks differ in a setting that is not a choice of the space, such as the recipe."""
    first = specs[0]
    for spec in specs[1:]:
        for part in ("data", "recipe", "pretrain"):
            ours, theirs = _read_part(first, part), _read_part(spec, part)
            names = {"resolution"} if part == "data" else ours.keys() | theirs.keys()
            for name in sorted(names):
                free = (part, name) in LABELS or f"{part}.{name}" in space.by_name
                if not free and ours.get(name) != theirs.get(name):
                    raise FrontierError(
                        f"the records differ in {part}.{name} ({ours.get(name)} and {theirs.get(name)}), which is not "
                        "a choice of the space; give records with one value"
                    )


def _read_part(spec: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    # The path of a pretraining's faces and its seed do not count as settings.
    view = view_spec(spec)
    return (describe_pretraining(view) if part == "pretrain" else view.get_written(part)) or {}


class _CostBook:
    """Known exact costs of points, and models for the rest."""

    def __init__(self, space: SearchSpace, base: Mapping[str, Any], precision: str) -> None:
        self.space, self.base, self.precision = space, base, precision
        self.exact: dict[tuple[tuple[str, str], ...], tuple[int, int]] = {}

    def learn(self, records: Sequence[TrialRecord]) -> None:
        """Add the costs in records, including those of networks over the cap."""
        for record in records:
            size = getattr(record, f"bytes_{self.precision}")
            point = self.space.read_point(record.spec)
            if point is not None and size and record.macs:
                self.exact[tuple(point.items())] = (size, record.macs)

    def trace(self, codes: np.ndarray) -> None:
        """Cost these points exactly."""
        for row in codes:
            self.compute(decode_point(self.space, row))

    def compute(self, point: Point) -> tuple[str, int, int]:
        """Return a name of the built network, its bytes and its MACs; an empty name and zeros for an invalid point."""
        from ffem_jax.cost.cost import compute_cost
        from ffem_jax.specs.architecture import SpecError, resolve_network

        try:
            view = view_spec(apply_point(self.base, point))
            arch = read_arch(view.get_written("arch"))
            resolution = view.data.resolution
            network = resolve_network(arch)
            TrialSpec(arch=arch, data=dataclasses.replace(TrialSpec().data, resolution=resolution))
        except SpecError:
            return "", 0, 0
        key = tuple(point.items())
        if key not in self.exact:
            cost = compute_cost(network, resolution)
            self.exact[key] = (cost.get_bytes(self.precision), cost.macs)
        return f"{network} {resolution}", *self.exact[key]

    def fit(self) -> tuple[Surrogate, Surrogate]:
        """Return models of log bytes and of log MACs."""
        features = embed_codes(self.space, encode_points(self.space, [dict(key) for key in self.exact]))
        sizes = np.log(np.array(list(self.exact.values()), dtype=np.float64))
        by_bytes, by_macs = (Surrogate(features, column, None, None, COST_KERNELS) for column in sizes.T)
        return by_bytes, by_macs


def apply_point(base: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return the spec `base` (nested dicts) with the values of `point`. Raises SpaceError for a group of settings."""
    spec = copy.deepcopy(dict(base))
    for name, text in point.items():
        *parents, last = name.split(".")
        node: Any = spec
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        key: Any = int(last) if isinstance(node, list) else last
        value = read_value(text)
        old = node[key] if isinstance(node, list) else node.get(key)
        if isinstance(old, Mapping) and not isinstance(value, Mapping):
            raise SpaceError(f"{name} is a group of settings; to predict, the space must name the settings themselves")
        node[key] = {**old, **value} if isinstance(old, Mapping) else value
    return spec
