"""Which accuracies a record holds: each declared once, for commands, tables, figures and the page. No JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord


@dataclass(frozen=True)
class Measure:
    """An accuracy.

    Args:
        name: of the field that holds the rate; `--metric` takes it.
        counted: the field with the number of right tests. hits: the one that says for each test whether it was right.
        title: on a switch. noun: in a sentence. axis: of a figure; short: of one that is a column wide.
        meaning: what it measures and when it is the one to look at, as a sentence.
    """

    name: str
    counted: str
    hits: str
    title: str
    noun: str
    axis: str
    short: str
    meaning: str


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
    )
}  # fmt: skip

# Under View 2 `accuracy` is of pairs.
PAIRS = Measure(
    name="accuracy", counted="correct", hits="hits", title="Pairs",
    noun="verification accuracy on the pairs of LFW's View 2",
    axis="verification accuracy, pairs of View 2 (%)", short="accuracy (%)",
    meaning="accuracy is the share of pairs of images for which the distance of their embeddings tells whether both "
    "show one person, at the threshold chosen on the other folds.",
)  # fmt: skip


def count_correct(record: TrialRecord, metric: str) -> int:
    """How many tests of `record` were right by `metric`, which it must have."""
    counted = getattr(record, MEASURES[metric].counted)
    # An older record has the rate alone.
    return counted if counted is not None else round(getattr(record, metric) * (record.tested or 0))


def compute_chance(record: TrialRecord) -> float | None:
    """The accuracy of guessing, in 0 to 1: one of the people, or one of same and different; None where not known."""
    if record.view.tests_pairs:
        return 0.5
    return 1 / record.people if record.people > 1 else None
