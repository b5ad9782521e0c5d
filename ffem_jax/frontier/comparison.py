"""What a comparison found, and for each of its rows the sentence that the numbers allow."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ffem_jax.text import quote_code

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ComparisonRow:
    """Level `second` less level `first`, in one context or, where `overall`, over all of them. Rates are in 0 to 1.

    context: the settings that tell it from the other rows of these two levels.
    pairs, seeds, images, tests: pairs of trials, training seeds (each on its split), distinct images, and images
    times trials. only_first, only_second: tests that one of the two alone got right; None where not known.
    low, high: the 95 % interval of `difference`. p_value: of `test`; p_corrected: by Holm, over all rows.
    test: `mcnemar`, `sign flip`, or empty where the records do not say which images were right: the interval then
    treats the two levels' images as different ones.
    bytes_first, bytes_second: smallest and largest deployed size in the row.
    """

    first: str
    second: str
    context: str
    overall: bool
    pairs: int
    seeds: int
    images: int
    tests: int
    accuracy_first: float
    accuracy_second: float
    difference: float
    low: float
    high: float
    only_first: int | None
    only_second: int | None
    test: str
    p_value: float | None
    p_corrected: float | None
    bytes_first: tuple[int, int] | None
    bytes_second: tuple[int, int] | None

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: the corrected test and the interval must both say so."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they are of. notes: one line for each thing left out or to be known."""

    factor: str
    metric: str
    precision: str
    title: str
    synthetic: bool
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as nested dicts and lists, ready for JSON."""
        rows = [
            {**dataclasses.asdict(row), "shown": row.shown, "sentence": write_sentence(row, self)} for row in self.rows
        ]
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "rows"}
        return json.loads(json.dumps({**fields, "rows": rows}))


def write_sentence(row: ComparisonRow, comparison: Comparison) -> str:
    """What may be said of the row, in one sentence. An interval that holds 0 says what it excludes, and no more."""
    place = f"over {row.context} contexts: " if row.overall else f"{row.context}: " if row.context else ""
    sentence = place + _judge(row, sum(other.p_value is not None for other in comparison.rows))
    return sentence[0].upper() + sentence[1:]


def _judge(row: ComparisonRow, tests: int) -> str:
    first, second = quote_code(row.first), quote_code(row.second)
    interval = f"95 % interval {format_points(row.low)} to {format_points(row.high)}"
    if row.shown:
        better = "better" if row.difference > 0 else "worse"
        return (
            f"{second} is {100 * abs(row.difference):.1f} points {better} than {first} ({interval}; "
            f"{_say_p(row.p_corrected)} after Holm's correction)."
        )
    ahead = f"{second} came out {format_points(row.difference)} points against {first} ({interval}), which"
    if not row.low <= 0 <= row.high:
        if row.p_value is None:
            return f"{ahead} the unpaired interval alone supports: there is no paired test, and no correction."
        if tests == 1 or row.p_value >= SIGNIFICANT:
            return f"{ahead} the exact test does not support ({_say_p(row.p_value)}): a hint, not a finding."
        return (
            f"{ahead} does not stand once all {tests} rows are counted ({_say_p(row.p_corrected)}): "
            "a hint, not a finding."
        )
    excluded = (
        f"that {second} is more than {_reach(row.high)} points better or more than {_reach(-row.low)} points worse"
    )
    if row.p_corrected is not None and row.p_corrected < SIGNIFICANT:
        return (
            f"these trained networks differ on these images ({format_points(row.difference)} points), but seeds "
            f"differ too much to say so of {second} and {first}; excluded is {excluded}."
        )
    return f"no difference is shown; what the interval excludes is {excluded} than {first}."


def format_points(rate: float) -> str:
    """A difference of rates in points, signed."""
    text = f"{100 * rate:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def format_p(p_value: float | None) -> str:
    """A p-value in two digits."""
    return "-" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"


def _say_p(p_value: float | None) -> str:
    text = format_p(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _reach(rate: float) -> str:
    return f"{100 * max(0.0, rate):.1f}"
