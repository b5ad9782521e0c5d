"""Short names for networks, with only what distinguishes them within one figure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import TrialView, view_spec
from ffem_jax.specs.architecture import AttentionSpec, SpecError, select_effective_attention
from ffem_jax.specs.attention import get_title

NO_ATTENTION = "no attention"
# Format of a field in a label; others are shown as name and value.
PHRASES = {
    "arch.width_multiplier": "width {}",
    "arch.depth_multiplier": "depth {}",
    "arch.embedding_dim": "{} features",
    "arch.head_channels": "head {}",
    "arch.pooling": "{} pooling",
    "arch.activation": "{}",
    "data.resolution": "{} px",
    "recipe.epochs": "{} epochs",
    "pretrain.name": "pretrained on {}",
    "pretrain.recipe": "by {}",
}


def make_labels(specs: Sequence[dict[str, Any]]) -> list[str]:
    """Create a unique label for each trial spec (nested dicts).

    Uses the networks' names if these are unique; otherwise the differing settings: attention, multipliers, resolution,
    recipe. Common settings are left out.
    """
    views = [view_spec(spec) for spec in specs]
    names = [view.get_name("arch") or "network" for view in views]
    if len(set(names)) == len(names):
        return names
    attention = _describe_attention([view.get_written("arch").get("attention", {}) for view in views])
    fields = _describe_fields(views)
    # Omit "no attention" if the label has other parts.
    labels = [
        ", ".join(filter(None, ("" if rest and first == NO_ATTENTION else first, rest))) or name
        for first, rest, name in zip(attention, fields, names, strict=True)
    ]
    if len(set(labels)) < len(labels) and len(set(names)) > 1:
        labels = [f"{name}, {label}" if label != name else name for name, label in zip(names, labels, strict=True)]
    # Stage tables are too long for a label: remaining duplicates are numbered.
    total, seen = Counter(labels), Counter[str]()
    for i, label in enumerate(labels):
        if total[label] > 1:
            seen[label] += 1
            labels[i] = f"{label} #{seen[label]}"
    return labels


def describe_data(records: Sequence[TrialRecord], resolutions: Iterable[int], tests: Iterable[int | None]) -> str:
    """Describe data set, resolution, protocol and test images in one line."""
    variants = sorted({record.data_variant for record in records if record.data_variant})
    data = records[0].data or records[0].view.get_name("data") or "?"
    pixels = sorted(set(resolutions))
    size = f"{pixels[0]} x {pixels[0]}" if len(pixels) == 1 else f"{pixels[0]} to {pixels[-1]} pixels"
    protocol = records[0].view.get_written("protocol")
    name = f"{protocol.get('folds', '?')}-fold" if protocol.get("name") == "kfold" else protocol.get("name", "?")
    noun = "pairs" if protocol.get("name") in ("view2", "bins") else "images"
    tested = sorted({images for images in tests if images})
    images = f"{tested[0]:,}" if len(tested) == 1 else f"{tested[0]:,} to {tested[-1]:,}" if tested else "no"
    return f"{data}{f' ({variants[0]})' if variants else ''}, {size}, {name}, {images} test {noun}"


def describe_placement(attention: dict[str, Any]) -> str:
    """Return the placement of the attention in command-line form; empty without attention."""
    if attention.get("kind", "none") == "none":
        return ""
    placement = attention.get("placement", "")
    return placement if isinstance(placement, str) else "[" + ",".join(str(index) for index in placement) + "]"


def _describe_attention(attentions: Sequence[dict[str, Any]]) -> list[str]:
    read = [_read_attention(attention) for attention in attentions]
    several = len({fields["kind"] for fields in read}) > 1
    # Computed once per kind: thousands of networks have few kinds.
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for fields, attention in zip(read, attentions, strict=True):
        for name, value in (attention | fields).items():
            values[fields["kind"], name].add(str(value))
    described = []
    for fields in read:
        kind = fields["kind"]
        if kind == "none":
            described.append(NO_ATTENTION if several else "")
            continue
        varying = [name for name in fields if name != "kind" and len(values[kind, name]) > 1]
        words = [
            fields[name]
            if name == "placement"
            else f"{name.removeprefix('options.').replace('_', ' ')} {_format(fields[name])}"
            for name in varying
        ]
        described.append(" ".join([get_title(kind), *words]) if words or several else "")
    return described


def _read_attention(attention: dict[str, Any]) -> dict[str, Any]:
    """Return the kind, the fields it reads and the placement; for an unknown kind, all fields."""
    try:
        fields = select_effective_attention(AttentionSpec(**attention))
    except (SpecError, TypeError):
        own = {f"options.{name}": value for name, value in attention.get("options", {}).items()}
        known = {name: value for name, value in attention.items() if name != "options"}
        fields = {"kind": attention.get("kind", "none"), **known, **own}
    return fields | ({"placement": describe_placement(attention)} if "placement" in fields else {})


def _describe_fields(views: Sequence[TrialView]) -> list[str]:
    flat = [_flatten(view) for view in views]
    names = list(dict.fromkeys(name for fields in flat for name in fields))
    differing = [name for name in names if len({str(fields.get(name)) for fields in flat}) > 1]
    if len({str(fields["pretrain.recipe"]) for fields in flat if "pretrain.recipe" in fields}) < 2:
        # The name of the pretraining already shows whether there is one.
        differing = [name for name in differing if name != "pretrain.recipe"]
    if "recipe.name" in differing:
        differing = [name for name in differing if not name.startswith("recipe.") or name == "recipe.name"]
    described = []
    for fields in flat:
        words = []
        for name in differing:
            if name not in fields:
                continue
            value = _format(fields[name])
            phrase = PHRASES.get(name, "{}" if name == "recipe.name" else name.split(".")[1].replace("_", " ") + " {}")
            words.append("no head" if name == "arch.head_channels" and value == "0" else phrase.format(value))
        described.append(", ".join(words))
    return described


def _flatten(view: TrialView) -> dict[str, Any]:
    """Return the fields to mention, as `group.field`."""
    arch = {k: v for k, v in view.get_written("arch").items() if k not in ("name", "attention", "stages")}
    groups = {"arch": arch, "data": {"resolution": view.get_written("data").get("resolution")}}
    groups["recipe"] = view.get_written("recipe")
    pretrain = view.get_written("pretrain")
    groups["pretrain"] = {k: v for k, v in pretrain.items() if k == "name"}
    if view.is_pretrained and (recipe := pretrain.get("recipe", {}).get("name")):
        groups["pretrain"]["recipe"] = recipe
    return {f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
