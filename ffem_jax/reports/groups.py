"""The report of accuracy by group: its table, and a sentence on the largest gap."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from ffem_jax.analysis.groups import NetworkGroups
from ffem_jax.metrics.subgroups import FEWEST_IMAGES, FEWEST_PEOPLE
from ffem_jax.text.display import show_unseen
from ffem_jax.text.numbers import format_p
from ffem_jax.text.tables import Column, Table, make_table


def groups_to_dict(one: NetworkGroups) -> dict[str, Any]:
    """Return the groups of one network as nested dicts and lists, ready for JSON, with the sentence on their gap."""
    return json.loads(json.dumps({**dataclasses.asdict(one), "sentence": write_gap(one)}))


def write_gap(one: NetworkGroups) -> str:
    """Return what may be claimed about the largest gap, in one sentence."""
    if one.gap is None:
        return show_unseen(
            f"{one.network} by {one.column}: fewer than two groups have {FEWEST_IMAGES} images of {FEWEST_PEOPLE} "
            "people, too few to tell."
        )
    gap = one.gap
    size = f"{100 * gap.difference:.1f} points between {gap.best} and {gap.worst}"
    p = format_p(one.p_corrected)
    verdict = "more than chance" if (one.p_corrected or 0.0) < 0.05 else "statistically indistinguishable from no gap"
    return show_unseen(
        f"{one.network} by {one.column}: {size}; p {p if p.startswith('<') else f'= {p}'} by permutation of "
        f"{gap.drawn}, after Holm's correction: {verdict}."
    )


def render_groups(found: Sequence[NetworkGroups], title: str) -> Table:
    """Return a table with one line per group, for the terminal."""
    names = [Column(name, fold=True) for name in ("network", "by", "group")]
    numbers = [
        Column("images", right=True, whole=True, rank=1),
        Column("people", right=True, whole=True, rank=2),
        Column("% [95 %]", right=True, whole=True),
    ]
    rows = []
    for one in found:
        for group in one.groups:
            rate = f"{100 * group.accuracy:.1f} [{100 * group.low:.1f}, {100 * group.high:.1f}]"
            few = "" if group.enough else "too few to tell"
            rows.append([one.network, one.column, group.name, str(group.images), str(group.people), rate, few])
        if one.unknown:
            rows.append([one.network, one.column, "not known", str(one.unknown), "", "", "left out"])
    return make_table([*names, *numbers, ""], rows, title=title)
