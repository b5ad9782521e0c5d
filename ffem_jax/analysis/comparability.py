"""Which recorded results may be compared. All that a trial's key hashes is taken apart into three:

- the setting, which results must share to stand on one axis: the faces, and the protocol but for its draws;
- the network in the widest sense: as it is built, its resolution, recipe and pretraining;
- the run: seed, pretraining's seed, split seed and fold, which are draws of one experiment.

A field that is added to a spec, and so to the key, lands in one of them by itself. Paths and names are in none.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ffem_jax.errors import FfemError
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.records.view import UNREADABLE, TrialView, view_spec
from ffem_jax.specs.trial import (
    DataSpec,
    ProtocolSpec,
    RecipeSpec,
    get_added_defaults,
    select_effective,
    select_effective_protocol,
    select_used,
)

# Fields of a protocol that draw which images test; a run has them.
DRAWS = ("fold", "split_seed")
# Fields of a protocol that Eq. 7 alone reads: no accuracy depends on them.
MATCHING = ("sigma", "far_target")
# Fields of the data that say where something lies, and the one that belongs to the network.
PLACES = ("root", "cache_dir")
NAMED_SETTINGS = ("name", "resolution")


class FrontierError(FfemError):
    """Records that no frontier and no comparison can be made of. The message is one line and says what to do."""


class Run(NamedTuple):
    """What tells the trainings of one network from each other. pretraining_seed: 0 without a pretraining."""

    seed: int
    pretraining_seed: int
    split_seed: int
    fold: int


class Identity(NamedTuple):
    """A recorded trial taken apart. setting, network: texts that are equal where the thing is; see the module.

    The setting here is as the spec has it; whether the faces were the same, `select_comparable` judges.
    """

    setting: str
    network: str
    run: Run


def identify(record: TrialRecord) -> Identity:
    """Setting, network and run of a record. A part that this package cannot read counts as it is written."""
    return _identify(json.dumps(record.spec, sort_keys=True), identify_teacher(record))


def identify_teacher(record: TrialRecord) -> str:
    """Who taught, by what it says of the images and not by its file, which may be written again; empty without one."""
    return str(record.teacher.get("vectors") or record.teaching_fingerprint)


def identify_network(record: TrialRecord) -> str:
    """What makes two trials the same network in the same setting, but for the run."""
    return identify(record).network


@lru_cache(maxsize=65536)
def _identify(text: str, teacher: str = "") -> Identity:
    view = view_spec(json.loads(text))
    data = view.get_written("data")
    protocol = _select_protocol(view.protocol, view.is_exact("protocol"), view.get_written("protocol"))
    drawn = {name: protocol.pop(name, 0) for name in DRAWS}
    setting = [_drop(data, *PLACES, "resolution"), _drop(protocol, *MATCHING)]
    recipe = _select_recipe(view.recipe, view.is_exact("recipe"), view.get_written("recipe"))
    network = [_select_network(view), data.get("resolution"), recipe]
    pretraining_seed = view.pretrain.seed if view.is_pretrained else 0
    run = Run(view.seed, pretraining_seed, drawn["split_seed"], drawn["fold"])
    taught = [teacher] if teacher else []
    return Identity(_write(setting), _write([*network, describe_pretraining(view), *taught]), run)


def describe_pretraining(view: TrialView) -> dict[str, Any] | None:
    """What a trial's network was trained on before, without its seed, its resolution, which is the trial's own, and
    where the faces lie; or None. name: a label, but all that tells two folders apart whose records say no more."""
    if not view.is_pretrained:
        return None
    first, written, exact = view.pretrain, view.get_written("pretrain"), view.is_exact("pretrain")
    protocol = _select_protocol(first.protocol, exact, written.get("protocol", {}))
    return {
        "name": first.name,
        "data": _drop(written.get("data", {}), *PLACES, "resolution"),
        "protocol": _drop(protocol, *MATCHING),
        "recipe": _select_recipe(first.recipe, exact, written.get("recipe", {})),
    }


# What a package with other fields wrote counts as it stands: that is the next best.


def _select_protocol(protocol: ProtocolSpec, exact: bool, written: Mapping[str, Any]) -> dict[str, Any]:
    return select_effective_protocol(protocol) if exact else dict(written)


def _select_recipe(recipe: RecipeSpec, exact: bool, written: Mapping[str, Any]) -> dict[str, Any]:
    return _drop(select_effective(recipe) if exact else written, "name")


def _select_network(view: TrialView) -> dict[str, Any]:
    try:
        return select_used(view.network)
    except UNREADABLE:
        network = _drop(view.get_written("arch"), "name")
    if view.arch.attention.kind == "none":
        network["attention"] = "none"
    return network


def _drop(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _write(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# ------------------------------------------------------------------------- what shares an axis


def select_comparable(
    records: Iterable[TrialRecord], *, faces: str = "", varying: str = ""
) -> tuple[list[TrialRecord], list[str]]:
    """The records that can stand on one axis, one a training, and a note for each thing that is left out.

    Where the faces of one data set changed while trials were recorded (a picture was added), those of the newest faces
    are taken, of those that something was trained on to the end. `faces` takes the trials of one fingerprint instead,
    or of what it begins with. The resolution may differ, and so may the data setting `varying`, such as `data.crop`.

    Raises FrontierError for trials of several data sets, protocols or data settings, and where none is of `faces`.
    """
    kept = latest_records(records)
    notes: list[str] = []
    if faces:
        kept, notes = choose_faces(kept, faces)
    _check_data_sets(kept)
    _check_protocols(kept)
    _check_settings(kept, varying)
    pictures = _find_pictures(kept)
    kept = _take_newest(kept, lambda r: ("", pictures[id(r)]), "faces", notes)
    kept = _take_newest(kept, lambda r: (_describe_view(r), r.data_fingerprint), "pixels of the faces", notes)
    kept = _take_newest(kept, lambda r: (_describe_first(r), r.pretraining_fingerprint),
                        "faces that networks were pretrained on", notes)  # fmt: skip
    once = latest_records(kept, identify)
    if len(once) < len(kept):
        notes.append(
            f"{len(kept) - len(once)} trials are left out: another record of the same training, of a different "
            f"{' or '.join(f'protocol.{name}' for name in MATCHING)} or an earlier version, stands beside a later one"
        )
    return once, notes


def check_comparable(records: Sequence[TrialRecord], *, varying: str = "") -> None:
    """Raise FrontierError unless `select_comparable` takes all of `records`, but for repeated ones."""
    _, notes = select_comparable(records, varying=varying)
    left_out = [note for note in notes if "--faces" in note]  # of other versions, not of one training recorded twice
    if left_out:
        raise FrontierError(f"the records mix versions of one data set: {left_out[0]}; take each alone")


def _check_data_sets(records: Sequence[TrialRecord]) -> None:
    variants = {record.data_variant for record in records if record.data_variant}
    # A trial that never loaded its faces (over the cap, failed) does not know their variant.
    known = next(iter(variants)) if len(variants) == 1 else ""
    counts: Counter[str] = Counter()
    for record in records:
        name = record.data or record.view.get_name("data") or "?"
        variant = record.data_variant or known
        drawn = " [synthetic]" if record.synthetic and name != "synthetic" else ""
        counts[name + (f" ({variant})" if variant else "") + drawn] += 1
    _refuse_several("data sets", counts)


def _check_protocols(records: Sequence[TrialRecord]) -> None:
    protocols = [json.loads(identify(record).setting)[1] for record in records]
    _refuse_several("protocols", Counter(_describe_protocol(protocol, protocols) for protocol in protocols))
    tested = [record.bins for record in records if record.bins]
    _refuse_several("evaluation sets", Counter(_describe_bins(bins) for bins in tested))


def _describe_bins(bins: Mapping[str, Mapping[str, Any]]) -> str:
    return " and ".join(f"{name} [{row.get('fingerprint', '?')}]" for name, row in sorted(bins.items()))


def _describe_protocol(protocol: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    kind, defaults = protocol.get("name", "?"), get_added_defaults(ProtocolSpec)
    # A record leaves out what is at its default; where another has it, a reader wants to see it.
    names = {name for other in others if other.get("name") == kind for name in other} - {"name"}
    ordered = sorted(names, key=lambda name: (name in defaults, name))
    values = {name: protocol.get(name, defaults.get(name)) for name in ordered}
    return f"{kind} with {', '.join(f'{name}={value}' for name, value in values.items())}" if values else str(kind)


def _refuse_several(what: str, counts: Mapping[str, int]) -> None:
    if len(counts) > 1:
        names = ", ".join(f"{name} ({count} trials)" for name, count in counts.items())
        raise FrontierError(f"the records mix {what}: {names}; take each alone")


def _check_settings(records: Sequence[TrialRecord], varying: str) -> None:
    """Raise FrontierError where the data's settings made other faces of one data set.

    Settings that led to the same faces are alike, whatever they say; but under view2 they choose who trains.
    """
    pictures, left_out = _find_pictures(records), varying.removeprefix("data.")
    alike: list[set[str]] = []
    every: dict[str, dict[str, Any]] = {}
    for record in records:
        settings = _drop(record.view.get_written("data"), *PLACES, *NAMED_SETTINGS, left_out)
        text, cut = _write(settings), (settings.get("crop"), settings.get("fit", DataSpec().fit))
        every[text], node = settings, {text}
        if not record.view.tests_pairs:
            seen = (pictures[id(record)], record.data_fingerprint)
            node |= {f"{kind} {one} {cut}" for kind, one in zip(("pictures", "pixels"), seen, strict=True) if one}
        touching = [group for group in alike if group & node]
        alike = [group for group in alike if not group & node] + [node.union(*touching)]
    if len(alike) > 1:
        names, defaults = {name for settings in every.values() for name in settings}, get_added_defaults(DataSpec)
        values = {
            name: {json.dumps(settings.get(name, defaults.get(name))) for settings in every.values()}
            for name in sorted(names)
        }
        mixed = [f"data.{name} ({', '.join(sorted(found))})" for name, found in values.items() if len(found) > 1]
        raise FrontierError(
            f"the records mix settings of {records[0].data or 'their data'}: {', '.join(mixed)}; take each alone"
        )


def _find_pictures(records: Sequence[TrialRecord]) -> dict[int, str]:
    """By id of a record, which pictures it saw, whatever the crop and the resolution; empty where it does not say.

    Drawn faces are drawn anew at each resolution, and older records know the pixels alone: there these stand for them.
    """
    known = {r.data_fingerprint: r.pictures_fingerprint for r in records if r.pictures_fingerprint and not r.synthetic}
    # Of older records of several resolutions nothing tells whether the pictures were the same.
    return {id(record): "" if record.synthetic else known.get(record.data_fingerprint, "") for record in records}


def _describe_view(record: TrialRecord) -> str:
    return _write([record.pixels, record.view.data.crop, record.view.data.fit])


def _describe_first(record: TrialRecord) -> str:
    """Which faces a network was pretrained on and at which size, whatever became of them; the recipe is none of it."""
    return _write([_drop(describe_pretraining(record.view) or {}, "recipe"), record.resolution])


def choose_faces(records: Sequence[TrialRecord], faces: str) -> tuple[list[TrialRecord], list[str]]:
    """The records of the faces whose fingerprint begins with `faces`, and a note on the others.

    The fingerprint of some pixels stands for their images at every resolution; that of a pretraining's faces chooses
    among the networks with that pretraining and keeps all others. Raises FrontierError where no record is of them.
    """

    def is_named(*fingerprints: str) -> bool:
        return any(one.startswith(faces) for one in fingerprints if one)

    named = [record for record in records if is_named(record.pictures_fingerprint, record.data_fingerprint)]
    pictures = {record.pictures_fingerprint for record in named if record.pictures_fingerprint}
    chosen = {id(record) for record in named}
    kept = [record for record in records if id(record) in chosen or record.pictures_fingerprint in pictures]
    if not named:
        firsts = {_describe_first(record) for record in records if is_named(record.pretraining_fingerprint)}
        kept = [r for r in records if is_named(r.pretraining_fingerprint) or _describe_first(r) not in firsts]
        if not firsts:
            known = dict.fromkeys(
                one for r in records for one in (r.pictures_fingerprint or r.data_fingerprint,) if one
            )
            raise FrontierError(f"--faces {faces}: no recorded trial is of these; choose one of: {', '.join(known)}")
    left_out = len(records) - len(kept)
    return kept, [f"{left_out} trials of other faces are left out, by --faces {faces}"] if left_out else []


def _take_newest(
    records: list[TrialRecord],
    read: Callable[[TrialRecord], tuple[str, str]],
    what: str,
    notes: list[str],
) -> list[TrialRecord]:
    """The records of the newest version, in each group; those that know no version fit any.

    read: (group, version) of a record.
    """
    versions: dict[str, dict[str, list[TrialRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        group, version = read(record)
        if version:
            versions[group][version].append(record)
    place = {id(record): number for number, record in enumerate(records)}

    def age(own: list[TrialRecord]) -> tuple[bool, str, int]:
        finished = any(record.status == "done" for record in own)
        return finished, max(record.started_at or "" for record in own), max(place[id(record)] for record in own)

    gone: dict[int, str] = {}
    for by_version in versions.values():
        newest = max(by_version, key=lambda version: age(by_version[version]))
        gone |= {id(record): version for version, own in by_version.items() if version != newest for record in own}
    if gone:
        counted = Counter(gone.values())
        listed = ", ".join(f"{version} ({count})" for version, count in counted.items())
        data = next(record.data for record in records if id(record) in gone)
        notes.append(
            f"the {what} changed while trials of data={data} were recorded; the newest that something was trained on "
            f"count, and {len(gone)} trials of others are left out, by fingerprint: {listed}; "
            f"--faces {next(iter(counted))} takes those instead"
        )
    return [record for record in records if id(record) not in gone]
