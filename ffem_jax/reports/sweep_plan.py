"""The plan of a sweep as text: rows of a table, and a sentence per factor that it compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def describe_plan(plan: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table."""
    rows = [["trials", f"{plan['trials']:,}, {plan['trials_done']:,} of them recorded as done"]]
    if plan["kind"] == "search":
        rows[0][1] += f"; proposed by {plan['sampler']}"
        rows.append(["space", f"{plan['space']:,} networks; sizes and times are from a sample of {plan['sampled']}"])
        if plan["rungs"]:
            rungs = ", ".join(map(str, plan["rungs"]))
            rows.append(["halving", f"at epochs {rungs}; the hours are without halving"])
        if plan["n_epochs"]:
            rows.append(["epochs", f"{plan['n_epochs']:,} at most, over all networks"])
    refused = ""
    if plan["refused"] and plan["kind"] == "search":
        refused = f"; {len(plan['refused'])} of the sample are over the cap, and the search replaces them by others"
    elif plan["refused"]:
        refused = f"; {len(plan['refused'])} more are over the cap and not trained"
    rows.append(["networks", f"{plan['networks']:,}{refused}"])
    if plan["bytes"]:
        rows.append(["size", f"{_range(plan['bytes'], 1e6, '.2f')} MB in {plan['precision']}"])
        rows.append(["MACs", f"{_range(plan['macs'], 1e6, '.1f')} million per face"])
    rows += [["faces", text] for text in _describe_faces(plan["faces"])]
    if plan["pretrainings"]:
        rows.append(["pretrainings", f"{plan['pretrainings']:,}, {plan['pretrainings_left']:,} of them still to train"])
    if plan["steps"]:
        rows.append(["training steps", f"{_range(plan['steps'], 1, ',.0f')} per trial"])
    if plan["disk_bytes"]:
        total = f"; {plan['disk_total_bytes'] / 1e9:.2f} GB in all" if plan["disk_total_bytes"] is not None else ""
        rows.append(["disk", f"about {_range(plan['disk_bytes'], 1e6, '.0f')} MB per trial{total}"])
    for what, key in (("time per trial", "trial_seconds"), ("time per pretraining", "pretraining_seconds")):
        if plan[key]:
            rows.append([what, f"{_range(plan[key], 60, '.1f')} min, and {plan['compile_seconds']:.0f} s to compile"])
    if plan["hours"] is not None:
        several = "one after the other" if plan["at_a_time"] == 1 else f"{plan['at_a_time']} at a time"
        rows.append(["time in all", f"{plan['hours']:.1f} hours, {several}; {plan['hours_left']:.1f} hours to go"])
        rows.append(["timing", plan["timing"]])
    return rows


def _range(values: Sequence[float], unit: float, form: str) -> str:
    low, high = (format(value / unit, form) for value in values)
    return low if low == high else f"{low} to {high}"


def _describe_faces(faces: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line per data set and protocol, with the range over its folds and splits."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in faces:
        groups.setdefault((row["data"], row["protocol"]), []).append(row)
    return [
        f"data={data}, protocol={protocol}: {_range(_ends(rows, 'train_images'), 1, ',.0f')} training and "
        f"{_range(_ends(rows, 'test_images'), 1, ',.0f')} test images; {_range(_ends(rows, 'people'), 1, ',.0f')} "
        "people in training"
        for (data, protocol), rows in groups.items()
    ]


def _ends(rows: Sequence[dict[str, Any]], key: str) -> tuple[int, int]:
    values = [row[key] for row in rows]
    return min(values), max(values)


def describe_differences(plan: dict[str, Any]) -> list[str]:
    """Return what the design can detect, a sentence per factor, and the assumptions behind it."""
    if plan["kind"] == "search":
        return ["A search does not compare levels: ffem effects estimates the effect of each choice, with intervals."]
    if not plan["differences"]:
        reason = "its images could not be counted" if not plan["faces"] else "no two of its trials can be paired"
        return [f"The design can detect no difference between levels: {reason}."]
    lines = [_describe_difference(one) for one in plan["differences"]]
    basis = (
        "ffem compare detects these with 80 % power, with Holm's correction for all rows of the factor; "
        f"{plan['assumption']}."
    )
    if plan["pretrainings"]:
        basis += " Variance between pretraining runs is excluded."
    return [*lines, basis]


def _describe_difference(one: dict[str, Any]) -> str:
    rows, factor = one["rows"], one["factor"]
    seeds, images = _ends(rows, "seeds"), _ends(rows, "images")
    design = (
        f"{len(rows)} row{'s' * (len(rows) > 1)}, {_range(seeds, 1, '.0f')} seed{'s' * (seeds[1] > 1)}, "
        f"{_range(images, 1, ',.0f')} distinct test images"
    )
    if one["smallest"] is None:
        return f"- {factor}: no difference, however large, is detectable ({design})"
    if one["largest"] is None:
        unseen = sum(row["difference"] is None for row in rows)
        return (
            f"- {factor}: differences of {100 * one['smallest']:.1f} points or more at best; "
            f"{unseen} rows detect none ({design})"
        )
    points = _range((one["smallest"], one["largest"]), 0.01, ".1f")
    return f"- {factor}: differences of {points} points or more ({design})"
