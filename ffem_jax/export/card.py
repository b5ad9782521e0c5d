"""The model card of an export: README.md beside the files, for whoever finds them without their record.

It says what the network takes and gives, what it learnt from and who taught it, whom it has not seen, how good it is
with intervals, what its thresholds do to strangers, and what it is not for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffem_jax.records.measures import compute_chance, find_measure
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.trial import TrialSpec
from ffem_jax.text.display import escape, make_markdown_table, quote_code

if TYPE_CHECKING:
    from ffem_jax.export.strangers import Strangers
    from ffem_jax.metrics.open_set import Estimate

CARD_FILE, CALIBRATION_FILE = "README.md", "calibration.json"

WHO_TESTS = {
    "view2": "Nobody in the pairs of fold {fold} of LFW's View 2 trained it (protocol=view2, split_seed={seed}).",
    "open_set": "Nobody in fold {fold} of {folds} by people trained it (protocol=open_set, split_seed={seed}).",
    "bins": "The people who trained it are not those of the evaluation sets, as far as their publishers say.",
}
CROPS = {
    "crop": "the centred square of {share:g} of the image's shorter side",
    "pad": "the centred square of {share:g} of the image's longer side, grey borders where the image ends",
    "stretch": "the centre of the image, {share:g} of each side, brought to a square",
}
KNOWN = "It knows the people it was tested on: other images of them trained it."
LIMITS = """\
For research. It is not accurate enough to open doors or accounts, nobody should lose anything by its answer, and faces
are personal data: ask the people. It was tested on the faces named above and no others; groups of people who are rare
among them may fare worse, and `ffem groups` on your own faces says how much."""


def write_card(
    trial: TrialSpec,
    manifest: dict[str, Any],
    record: TrialRecord | None,
    strangers: Strangers | None,
) -> str:
    """The card as Markdown. `record` is the trial's, None where it is not beside its folder."""
    sections = [
        f"# {escape(manifest['network'])}: faces to vectors of {manifest['output']['length']} numbers",
        _say_what(manifest, record),
        "## What it takes and gives\n" + _say_input(manifest),
        "## What it learnt from\n" + _say_training(trial, record),
        "## How good it is\n" + _say_accuracy(trial, manifest, record),
    ]
    if strangers:
        sections.append("## Thresholds\n" + _say_thresholds(strangers))
        if strangers.groups:
            sections.append("## By group\n" + _say_groups(strangers))
    sections.append("## What it is not for\n" + LIMITS)
    return "\n\n".join(sections) + "\n"


def _say_what(manifest: dict[str, Any], record: TrialRecord | None) -> str:
    size = f"{manifest['bytes'] / 1e6:.2f} MB as {manifest['format']} in {manifest['dtype']}"
    cost = f"{record.params:,} parameters, {record.macs:,} multiplications per face; " if record and record.macs else ""
    drawn = "\n\n**Trained on synthetic faces: drawn, not photographed. It recognises nobody.**"
    told = f"{cost}{size}. Model {quote_code(manifest['model_id'])}, trial {quote_code(manifest['trial_key'])}."
    return told + (drawn if manifest.get("synthetic") else "")


def _say_input(manifest: dict[str, Any]) -> str:
    crop, given = manifest["crop"], manifest["input"]
    side = crop["resolution"]
    lines = [
        f"- Input: RGB, {side} x {side} pixels, {given['dtype']} of shape {given['shape']}; each pixel of 0 to 255 "
        f"times {given['scale']:.9g}, plus {given['offset']:.9g}.",
        f"- Crop: {CROPS[crop['fit']].format(share=crop['fraction'])}, then resized (bilinear).",
        f"- Output: {manifest['output']['length']} numbers. Bring them to unit length; the distance of two faces is "
        "half the Euclidean distance of their vectors, 0 to 1.",
        "- `ffem embed FOLDER --export THIS_FOLDER --out vectors.npz` does all of this.",
    ]
    return "\n".join(lines)


def _say_training(trial: TrialSpec, record: TrialRecord | None) -> str:
    data, protocol, recipe = trial.data, trial.protocol, trial.recipe
    count = f"{record.train_images:,} images of {record.people:,} people, of " if record else ""
    variant = f" ({record.data_variant})" if record and record.data_variant else ""
    lines = [
        f"- Faces: {count}`data={data.name}`{variant}.",
        f"- Recipe: `{recipe.name}`, {recipe.epochs} epochs, seed {trial.seed}.",
    ]
    if trial.teacher.name != "none":
        lines.append("- " + _say_teacher(record.teacher if record else {}))
    told = WHO_TESTS.get(protocol.name, KNOWN)
    lines.append("- " + told.format(fold=protocol.fold, folds=protocol.folds, seed=protocol.split_seed))
    return "\n".join(lines)


def _say_teacher(about: dict[str, Any]) -> str:
    facts = [f"{name} {escape(str(about[name]))}" for name in ("source", "licence") if about.get(name)]
    named = escape(str(about.get("name", "not recorded")))
    measured = about.get("measured", {})
    rates = "".join(f"; by itself {100 * rate:.1f} % right on the same test" for rate in measured.values())
    where = f" ({', '.join(facts)})" if facts else ""
    return (
        f"Teacher: {named}{where}{rates}. It saw other data, and possibly the people who test here: this is no result "
        "from these faces alone."
    )


def _say_accuracy(trial: TrialSpec, manifest: dict[str, Any], record: TrialRecord | None) -> str:
    if record is None or record.accuracy is None:
        return "Its record is not beside its folder, so no measure is told here."
    measure = find_measure("accuracy", trial.protocol.name)
    mirror = ", image and mirror image averaged" if trial.recipe.flip_test else ""
    lines = [
        f"- {measure.noun}: {100 * record.accuracy:.1f} % [{100 * (record.accuracy_low or 0):.1f}, "
        f"{100 * (record.accuracy_high or 0):.1f}] of {record.tested:,} tests{mirror}. {measure.interval}"
        f"{_say_chance(record)}"
    ]
    if record.verification:
        found = record.verification
        lines.append(
            f"- Of these pairs: area under the ROC curve {found['auc']:.4f}, equal error rate "
            f"{100 * found['eer']:.1f} %, true accepts {100 * found['tar_at_far_1e2']:.1f} % at 1 % false accepts."
        )
    exported = manifest.get("accuracy")
    if exported:
        lines.append(
            f"- This file against the trained network, by {exported['measure']}, each face looked at once: "
            f"{100 * exported['reference']:.1f} -> {100 * exported['exported']:.1f} %, {exported['answers_changed']} "
            f"of {exported['images']:,} answers changed."
        )
    return "\n".join(lines)


def _say_chance(record: TrialRecord) -> str:
    chance, low = compute_chance(record), record.accuracy_low
    if chance is None:
        return ""
    doubt = " **It is not shown to do better.**" if low is not None and low <= chance else ""
    return f" Guessing has {100 * chance:.1f} %.{doubt}"


def _say_thresholds(strangers: Strangers) -> str:
    calibration = strangers.calibration
    thresholds = {rate.false_accept_rate: rate for rate in calibration.told}
    rows = [
        [
            f"{one.false_accept_rate:g}",
            f"{thresholds[one.false_accept_rate].threshold:.4f}",
            _percent(one.false_accepts),
            _percent(one.accepted),
        ]
        for one in strangers.checked
    ]
    head = ["false accepts asked for", "threshold", "false accepts of others", "pairs of one person accepted"]
    lines: Sequence[str] = make_markdown_table(head, rows)
    return "\n".join(
        [
            f"From {calibration.images:,} images of {calibration.people:,} people whom the network has never seen. The "
            "last two columns are of people who did not choose the threshold: half of them chose, the other half were "
            "judged, and the other way round.",
            "",
            *lines,
            "",
            f"`{CALIBRATION_FILE}` has the whole curve; `ffem serve --calibration {CALIBRATION_FILE}` takes it.",
        ]
    )


def _say_groups(strangers: Strangers) -> str:
    from ffem_jax.export.strangers import GROUPS_RATE

    rows = [
        [
            escape(one.column), escape(one.group), f"{one.people:,}", f"{one.images:,}", _range(one.accepted),
            _range(one.false_accepts),
        ]
        for one in strangers.groups
    ]  # fmt: skip
    head = ["attribute", "group", "people", "images", "pairs of one person accepted", "false accepts within the group"]
    left = "".join(f" Not among them: {escape(note)}." for note in strangers.passed_over)
    return "\n".join(
        [
            f"What the threshold for {GROUPS_RATE:g} does to groups of these strangers, with 95 % intervals that draw "
            f"people. False accepts are of pairs of two people of the group, who may look more alike than two of all "
            f"people do.{left}",
            "",
            *make_markdown_table(head, rows),
        ]
    )


def _range(rate: Estimate | None) -> str:
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" if rate else "too few people"


def _percent(rate: float | None) -> str:
    return "not measured" if rate is None else f"{100 * rate:.2f} %"
