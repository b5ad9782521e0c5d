"""The result of a comparison: its rows and their basis."""

from __future__ import annotations

from dataclasses import dataclass

from ffem_jax.records.measures import Measure, find_measure

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ComparisonRow:
    """Level `second` minus level `first`, in one context or, if `overall`, over all of them. Rates are in 0 to 1.

    context: the settings that distinguish it from the other rows of these two levels.
    pairs, seeds, images, tests: pairs of trials, training seeds (each on its split), distinct images, and images
    times trials. people: the number of people, if people are resampled instead of images; else None. only_first,
    only_second: tests that only one of the two got correct; None if unknown.
    low, high: the 95 % interval of `difference`. p_value: of `test`; p_corrected: by Holm, over all rows.
    test: `mcnemar`, `sign flip`, `sign flip of people`, or empty if the records do not say which images were correct:
    the interval then treats the two levels' images as different.
    bytes_first, bytes_second: smallest and largest deployed size in the row. pretrainings: number of pairs of
    pretrainings behind the seeds; 0 without pretraining.
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
    people: int | None = None
    pretrainings: int = 0

    @property
    def significant(self) -> bool:
        """Whether the levels differ significantly, by both the corrected test and the interval."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """All rows and their basis. protocol: that of the records. notes: a line for each omission or caveat.
    exclusions: limits of all rows: networks at chance level, shared parts of trainings (see `independence`)."""

    factor: str
    metric: str
    precision: str
    title: str
    synthetic: bool
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    protocol: str = ""
    exclusions: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """The measure compared."""
        return find_measure(self.metric, self.protocol)

    def is_better(self, row: ComparisonRow) -> bool:
        """Return whether the second level of `row` is better than the first."""
        return row.difference < 0 if self.measure.lower_is_better else row.difference > 0
