"""Which measures of a trained network a record holds: each declared once, for commands, tables, figures and the page.
No JAX.

To add one: its field in `TrialRecord`, or in a dict of it, and its line here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord

IMAGES = "Its interval is Wilson's at 95 % for the number of distinct test images, however many seeds saw them."
PEOPLE = (
    "Its interval is for other people: Wilson's at 95 %, for the number of distinct test images divided by the design "
    "effect of people, whose images tend to be right or wrong together; several seeds do not narrow it."
)
PAIRED = "Its interval is Wilson's at 95 % for the number of pairs, however many seeds saw them."
DRAWN = (
    "Its interval is a bootstrap over people at 95 %, combined over folds, which share nobody; several seeds do not "
    "narrow it."
)


@dataclass(frozen=True)
class Measure:
    """A measure, a rate in 0 to 1.

    Args:
        name: `--metric` takes it; the field that holds it, in the record or in the record's dict `within`, where its
            interval is beside it as `{name}_low` and `{name}_high`.
        title: on a switch. word: in a table's head, as in "accuracy, %". noun: in a sentence. axis: of a figure; short:
            of one that is a column wide.
        meaning: what it measures and when it is the one to look at, as a sentence. interval: what its interval is, as
            a sentence.
        counted: the field with the number of right tests. hits: the one that says for each test whether it was right.
            Both are empty where it is no share of tests.
        protocol: the only one whose records have it; empty where others have it too.
        chance: its value where the network guesses; None where that depends on the record.
    """

    name: str
    title: str
    noun: str
    axis: str
    short: str
    meaning: str
    word: str = "accuracy"
    interval: str = IMAGES
    counted: str = ""
    hits: str = ""
    within: str = ""
    protocol: str = ""
    chance: float | None = None
    lower_is_better: bool = False

    @property
    def best(self) -> str:
        """What the best value is among several."""
        return "lowest" if self.lower_is_better else "highest"

    def score(self, rate: float) -> float:
        """`rate` as a number in 0 to 1 that is the better the higher."""
        return 1 - rate if self.lower_is_better else rate


def _declare_tar(name: str, rate: float) -> Measure:
    share = f"{100 * rate:g} %"
    return Measure(
        name=name, word=f"TAR at FAR {share}", title=f"TAR at FAR {share}",
        noun=f"true accept rate of pairs of unknown people at a false accept rate of {share}",
        axis=f"true accept rate at false accept rate {share} (%)", short=f"TAR at FAR {share} (%)",
        meaning=f"{name} (protocol=open_set) is the share of pairs of one person that are accepted where {share} of "
        "the pairs of two people are, each person with equal weight: what an application that verifies people can "
        "expect.",
        interval=DRAWN, within="open_set", protocol="open_set", chance=rate,
    )  # fmt: skip


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            name="accuracy", counted="correct", hits="hits", title="Classifier",
            noun="closed-set accuracy of the classifier",
            axis="closed-set accuracy, classifier (%)", short="accuracy (%)",
            meaning="accuracy is the share of test images whose person the trained classifier names: it knows the "
            "people it was trained on and no others.",
        ),
        Measure(
            name="accuracy_gallery", counted="correct_gallery", hits="hits_gallery", title="Nearest gallery image",
            noun="closed-set accuracy of the nearest gallery image (Eq. 6)",
            axis="closed-set accuracy, nearest gallery image (%)", short="accuracy, gallery (%)",
            meaning="accuracy_gallery is the share of test images whose nearest training image, by distance of their "
            "embeddings (Eq. 6), shows the same person: what an application does that adds people without training.",
        ),
        _declare_tar("tar_at_far_1e2", 1e-2),
        _declare_tar("tar_at_far_1e3", 1e-3),
        _declare_tar("tar_at_far_1e4", 1e-4),
        Measure(
            name="auc", word="AUC", title="AUC", noun="area under the ROC curve of pairs of unknown people",
            axis="area under the ROC curve (%)", short="AUC (%)",
            meaning="auc (protocol=open_set) is the chance that a pair of one person is more similar than a pair of "
            "two, each person with equal weight: it needs no threshold and is the steadiest of these.",
            interval=DRAWN, within="open_set", protocol="open_set", chance=0.5,
        ),
        Measure(
            name="eer", word="EER", title="EER", noun="equal error rate of pairs of unknown people (lower is better)",
            axis="equal error rate (%), lower is better", short="EER (%)",
            meaning="eer (protocol=open_set) is the rate at which pairs of one person are refused as often as pairs of "
            "two are accepted, each person with equal weight: lower is better.",
            interval=DRAWN, within="open_set", protocol="open_set", chance=0.5, lower_is_better=True,
        ),
    )
}  # fmt: skip

# What `accuracy` is under a protocol that tests people whom the classifier does not know.
ACCURACIES: dict[str, Measure] = {
    "view2": Measure(
        name="accuracy", counted="correct", hits="hits", title="Pairs",
        noun="verification accuracy on the pairs of LFW's View 2",
        axis="verification accuracy, pairs of View 2 (%)", short="accuracy (%)",
        meaning="accuracy is the share of pairs of images for which the distance of their embeddings tells whether "
        "both show one person, at the threshold chosen on the other folds.",
        interval=PAIRED, protocol="view2", chance=0.5,
    ),
    "open_set": Measure(
        name="accuracy", counted="correct", hits="hits", title="Rank-1",
        noun="rank-1 identification accuracy among unknown people",
        axis="rank-1 identification accuracy, unknown people (%)", short="rank-1 accuracy (%)",
        meaning="accuracy under protocol=open_set is the share of test images whose nearest other image, by embedding, "
        "among all of the fold shows the same person, none of whom was trained on.",
        interval=PEOPLE, protocol="open_set",
    ),
    "bins": Measure(
        name="accuracy", counted="correct", hits="hits", title="Pairs",
        noun="verification accuracy on the pairs of insightface's evaluation sets",
        axis="verification accuracy, pairs of all sets (%)", short="accuracy (%)",
        meaning="accuracy under protocol=bins is the share of pairs of images for which the distance of their "
        "embeddings tells whether both show one person, over all sets, at the threshold chosen on the other nine folds "
        "of each.",
        interval=PAIRED, protocol="bins", chance=0.5,
    ),
}  # fmt: skip


def find_measure(metric: str, protocol: str = "") -> Measure:
    """What `metric`, one of MEASURES, is in records of `protocol`; of an unknown one, what it is of classifiers."""
    return ACCURACIES.get(protocol, MEASURES[metric]) if metric == "accuracy" else MEASURES[metric]


def list_metrics(records: Iterable[TrialRecord]) -> list[str]:
    """The names of MEASURES that any of `records` holds."""
    records = list(records)
    return [name for name in MEASURES if any(read_rate(record, name) is not None for record in records)]


def read_rate(record: TrialRecord, metric: str) -> float | None:
    """The value of `metric` in `record`, in 0 to 1; None where it has none."""
    measure = MEASURES[metric]
    return getattr(record, measure.within).get(metric) if measure.within else getattr(record, metric)


def read_interval(record: TrialRecord, metric: str) -> tuple[float, float] | None:
    """The ends of the interval of `metric` as `record` has it, in 0 to 1; None where it has none."""
    within = MEASURES[metric].within
    row = getattr(record, within) if within else vars(record)
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    return None if low is None or high is None else (low, high)


def count_correct(record: TrialRecord, metric: str) -> float:
    """How many tests of `record` were right by `metric`, which it must have; of a rate, its share of the tests."""
    measure, tested = MEASURES[metric], record.tested or 0
    if not measure.counted:
        return (read_rate(record, metric) or 0.0) * tested
    counted = getattr(record, measure.counted)
    # An older record has the rate alone.
    return counted if counted is not None else round(getattr(record, metric) * tested)


def compute_chance(record: TrialRecord, metric: str = "accuracy") -> float | None:
    """`metric` of guessing, in 0 to 1; None where the record does not tell.

    Of closed-set accuracy one of the people; of rank-1 the share of the other images that show the same person.
    """
    measure = find_measure(metric, record.view.protocol.name)
    if measure.chance is not None:
        return measure.chance
    if measure.protocol == "open_set":
        own = Counter(record.test_identities)
        others = len(record.test_identities) * (record.open_set.get("images", 0) - 1)
        return sum(count * (count - 1) for count in own.values()) / others if others > 0 else None
    return 1 / record.people if record.people > 1 else None
