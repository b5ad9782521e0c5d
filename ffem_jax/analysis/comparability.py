"""Decides which recorded results may be compared. Everything that a trial's key hashes is split into three parts:

- the setting, which results must share to be on one axis: the faces, and the protocol except its draws;
- the network in the widest sense: its architecture, resolution, recipe and pretraining;
- the run: seed, pretraining seed, split seed and fold, which are draws of one experiment.

A field added to a spec, and so to the key, falls into one of them automatically. Paths and names are in none.
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

# Protocol fields that determine which images test; they belong to the run.
DRAWS = ("fold", "split_seed")
# Protocol fields that only Eq. 7 uses: no accuracy depends on them.
MATCHING = ("sigma", "far_target")
# Data fields that are locations, and the name together with the field that belongs to the network.
PLACES = ("root", "cache_dir")
NAMED_SETTINGS = ("name", "resolution")


class FrontierError(FfemError):
    """Records cannot be put on one frontier or compared. The message is one line and says what to do."""


class UnpairedError(FrontierError):
    """No two trials differ only in the factor to compare."""


class Run(NamedTuple):
    """What distinguishes the trainings of one network. pretraining_seed: 0 without a pretraining."""

    seed: int
    pretraining_seed: int
    split_seed: int
    fold: int


class Identity(NamedTuple):
    """The three parts of a recorded trial; see the module.

    Args:
        setting, network: texts that are equal if and only if the setting or network is. The setting comes from the spec
            alone; `select_comparable` checks whether the faces were the same.
    """

    setting: str
    network: str
    run: Run


def identify(record: TrialRecord) -> Identity:
    """Return setting, network and run of a record. A part that this version cannot read is compared as written."""
    return _identify(json.dumps(record.spec, sort_keys=True), identify_teacher(record))


def identify_teacher(record: TrialRecord) -> str:
    """Return the teacher's identity, from its vectors because its file may be rewritten; empty without a teacher."""
    return str(record.teacher.get("vectors") or record.teaching_fingerprint)


def identify_network(record: TrialRecord) -> str:
    """Return the text that two trials of the same network share, whatever their runs."""
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
    """Return what the trial's network was pretrained on; None without a pretraining.

    Its seed, the location of its faces and its resolution (the trial's own) are left out. The name is only a label, but
    it may be all that distinguishes two folders.
    """
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


# A part written by a version with other fields is compared as written, as the next best option.


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
    """Return the records that can be on one axis, one per training, and a note for each omission.

    If the faces of a data set changed while trials were recorded (an image was added), the newest faces with a finished
    training are used. The resolution may differ.

    Args:
        faces: use the trials whose fingerprint begins with this instead.
        varying: a data setting that may differ, such as `data.crop`.

    Raises:
        FrontierError: the trials mix data sets, protocols or data settings, or none has `faces`.
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
                        "faces of the pretraining", notes)  # fmt: skip
    once = latest_records(kept, identify)
    if len(once) < len(kept):
        notes.append(
            f"{len(kept) - len(once)} trials are left out: a later record repeats the same training, with a different "
            f"{' or '.join(f'protocol.{name}' for name in MATCHING)} or from a newer version"
        )
    return once, notes


def check_comparable(records: Sequence[TrialRecord], *, varying: str = "") -> None:
    """Raise FrontierError unless `select_comparable` keeps all of `records` except repeated ones."""
    _, notes = select_comparable(records, varying=varying)
    # Notes about other versions, not about a training recorded twice.
    left_out = [note for note in notes if "--faces" in note]
    if left_out:
        raise FrontierError(f"the records mix versions of one data set: {left_out[0]}; use them separately")


def _check_data_sets(records: Sequence[TrialRecord]) -> None:
    variants = {record.data_variant for record in records if record.data_variant}
    # A trial that never loaded its faces (over the cap, failed) has no variant.
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
    # A record omits default values; the message shows them if another record has a different value.
    names = {name for other in others if other.get("name") == kind for name in other} - {"name"}
    ordered = sorted(names, key=lambda name: (name in defaults, name))
    values = {name: protocol.get(name, defaults.get(name)) for name in ordered}
    return f"{kind} with {', '.join(f'{name}={value}' for name, value in values.items())}" if values else str(kind)


def _refuse_several(what: str, counts: Mapping[str, int]) -> None:
    if len(counts) > 1:
        names = ", ".join(f"{name} ({count} trials)" for name, count in counts.items())
        raise FrontierError(f"the records mix {what}: {names}; use them separately")


def _check_settings(records: Sequence[TrialRecord], varying: str) -> None:
    """Raise FrontierError if different data settings produced different faces from one data set.

    Settings that led to the same faces count as equal, except under view2, where they select the training people.
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
            f"the records mix settings of {records[0].data or 'their data'}: {', '.join(mixed)}; use them separately"
        )


def _find_pictures(records: Sequence[TrialRecord]) -> dict[int, str]:
    """Return, by id of a record, the fingerprint of its images, regardless of crop and resolution; empty if unknown.

    Synthetic faces have none, because they are redrawn at each resolution. Older records only have the fingerprint of
    their pixels; a newer record with the same pixels supplies that of the images.
    """
    known = {r.data_fingerprint: r.pictures_fingerprint for r in records if r.pictures_fingerprint and not r.synthetic}
    # Older records at several resolutions do not tell whether the images were the same.
    return {id(record): "" if record.synthetic else known.get(record.data_fingerprint, "") for record in records}


def _describe_view(record: TrialRecord) -> str:
    return _write([record.pixels, record.view.data.crop, record.view.data.fit])


def _describe_first(record: TrialRecord) -> str:
    """Return the faces and resolution of a network's pretraining, without the recipe."""
    return _write([_drop(describe_pretraining(record.view) or {}, "recipe"), record.resolution])


def choose_faces(records: Sequence[TrialRecord], faces: str) -> tuple[list[TrialRecord], list[str]]:
    """Return the records of the faces whose fingerprint starts with `faces`, and a note on the others.

    A fingerprint of pixels selects the same images at every resolution; that of a pretraining's faces selects among
    networks with that pretraining and keeps all others. Raises FrontierError if no record has these faces.
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
            raise FrontierError(f"--faces {faces}: no recorded trial used these; choose one of: {', '.join(known)}")
    left_out = len(records) - len(kept)
    return kept, [f"{left_out} trials of other faces are left out because of --faces {faces}"] if left_out else []


def _take_newest(
    records: list[TrialRecord],
    read: Callable[[TrialRecord], tuple[str, str]],
    what: str,
    notes: list[str],
) -> list[TrialRecord]:
    """Return the records of the newest version in each group; records without a version fit any.

    read: returns (group, version) of a record.
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
            f"the {what} changed while trials of data={data} were recorded; the newest with a finished "
            f"training are used, and {len(gone)} trials of others are left out, by fingerprint: {listed}; "
            f"--faces {next(iter(counted))} uses those instead"
        )
    return [record for record in records if id(record) not in gone]
