"""`ffem predict RECORDS...`: predicts which untrained networks of a space are worth training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.recorded import add_cap, add_records, find_records, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say
from ffem_jax.text.tables import Column, Table, make_table

# As in the tables of MobileNetV2's paper.
STAGE_LETTERS = {"expansion": "t", "channels": "c", "repeats": "n", "stride": "s"}

if TYPE_CHECKING:
    from ffem_jax.search.model.prediction import Prediction
    from ffem_jax.search.space import SearchSpace


def run(words: Sequence[str]) -> int:
    """Rank untrained networks from the trained ones."""
    parser = Parser("predict", "Rank a million networks of a space from the records of some; trains nothing.")
    add_records(parser)
    add_space(parser)
    add_cap(parser)
    parser.add_argument("--cap-mmacs", type=float, default=0.0, help="the limit of MACs, in millions (none)")
    parser.add_argument("--top", type=int, default=20, help="how many networks to list (20)")
    parser.add_argument("--count", type=int, default=1_000_000, help="how many networks to rank (1000000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed for drawing networks from a larger space (0)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the list there, one column per choice")
    options = parser.parse_intermixed_args(words)
    for name in ("top", "count"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} {getattr(options, name)} must be at least 1")
    if not 0 <= options.cap_mmacs < float("inf"):
        raise UsageError(f"--cap-mmacs {options.cap_mmacs} must be millions of MACs, or 0 for no limit")

    from ffem_jax.analysis.cap import choose_cap
    from ffem_jax.search.model.prediction import predict_networks

    space = load_space(options.space, options.config_dir)
    records = read_comparable(find_records(options.records), options.faces)
    cap, notes = choose_cap(records, options.cap_mb, options.precision)
    for note in notes:
        say(f"ffem: warning: {note}")
    prediction = predict_networks(
        records,
        space,
        cap_mb=cap.megabytes,
        precision=cap.precision,
        cap_mmacs=options.cap_mmacs,
        top=options.top,
        count=options.count,
        seed=options.seed,
        tell=say,
    )
    if options.out:
        write_csv(prediction, space, options.out)
    if options.json:
        print(json.dumps(prediction.to_dict()))
    else:
        if prediction.networks:
            print_table(render_prediction(prediction))
        for line in describe(prediction):
            say(line)
        if options.out:
            say(f"list: {options.out}")
    return DONE


def add_space(parser: Parser) -> None:
    """The argument --space, the search space to model."""
    parser.add_argument("--space", default="search", metavar="SWEEP", help="the sweep that defines the space (search)")


def load_space(name: str, config_dir: Path | None) -> SearchSpace:
    """Load the space of the sweep `name`. Raises ConfigError or SpaceError if there is none."""
    from omegaconf import DictConfig, OmegaConf

    from ffem_jax.config.compose import find_sweep, load_sweep
    from ffem_jax.search.space import SpaceError, read_space

    path = find_sweep(name, config_dir)
    node = OmegaConf.select(load_sweep(path), "hydra.sweeper")
    if not isinstance(node, DictConfig):
        raise SpaceError(f"the sweep {path} defines no space: it has no hydra.sweeper")
    config: Any = OmegaConf.to_container(node, resolve=False)
    # Seeds are not part of a network.
    params = {key: text for key, text in (config.get("params") or {}).items() if key != "seed"}
    return read_space({**config, "params": params})


def render_prediction(prediction: Prediction) -> Table:
    """The list as a rich table; choices shared by all networks are given in the line below it."""
    # Column -> `Column.rank`: the highest is dropped first on a narrow terminal.
    numbers = {"% [90 %]": 0, "rank": 1, f"MB {prediction.precision}": 0, "million MACs": 2, "recorded": 3}
    shared, rows = _find_shared(prediction), []
    for network in prediction.networks:
        rate, low, high = (100 * v for v in (network.accuracy, network.accuracy_low, network.accuracy_high))
        cells = [
            f"{rate:.1f} [{low:.1f}, {high:.1f}]",
            f"{network.first_rank:,} to {network.last_rank:,}",
            f"{network.bytes / 1e6:.2f}",
            f"{network.macs / 1e6:.1f}",
            "-" if network.recorded is None else f"{100 * network.recorded:.1f}",
            shorten({k: v for k, v in network.point.items() if shared.get(k) != v}),
        ]
        rows.append(cells)
    columns = [
        *(Column(name, right=True, whole=True, rank=rank) for name, rank in numbers.items()),
        Column("choices", fold=True),
    ]
    return make_table(columns, rows)


def _find_shared(prediction: Prediction) -> dict[str, str]:
    first = prediction.networks[0].point
    if len(prediction.networks) == 1:
        return {}
    return {k: v for k, v in first.items() if all(n.point.get(k) == v for n in prediction.networks)}


def shorten(point: Mapping[str, str]) -> str:
    """Format choices for a table: a stage as `3:t6c64n2`, in the notation of MobileNetV2's tables."""
    stages: dict[str, str] = {}
    attention, rest = [], []
    for name, value in point.items():
        words = name.split(".")
        if words[:2] == ["arch", "stages"] and len(words) == 4 and words[3] in STAGE_LETTERS:
            stages[words[2]] = stages.get(words[2], "") + STAGE_LETTERS[words[3]] + value
        elif words[:2] == ["arch", "attention"]:
            attention.append(value if words[-1] == "kind" else f"{words[-1]}={value}")
        else:
            rest.append(f"{name.removeprefix('arch.')}={value}")
    listed = [f"stages {' '.join(f'{stage}:{text}' for stage, text in sorted(stages.items()))}"] if stages else []
    return "; ".join(filter(None, [" ".join(rest), *listed, " ".join(["attention", *attention]) if attention else ""]))


def describe(prediction: Prediction) -> list[str]:
    """Describe the source of the list and its reliability."""
    p, lines = prediction, []
    computing = f" and {p.cap_mmacs:g} M MACs" if p.cap_mmacs else ""
    if p.synthetic:
        lines.append("synthetic faces: the numbers say nothing about real ones")
    if not p.networks:
        lines.append(f"no network was found that fits {p.cap_mb:g} MB at {p.precision}{computing}; raise the cap")
    elif shared := _find_shared(p):
        lines.append("shared by all: " + shorten(shared))
    looked = f"all {p.drawn:,} networks of the space" if p.whole else f"{p.drawn:,} networks drawn from the space"
    outside = f", {p.outside} recorded ones outside the space ignored" if p.outside else ""
    lines.append(
        f"{looked}, about {p.ranked:,} of them under {p.cap_mb:g} MB{computing}, predicted from {p.learnt_from} "
        f"trained{outside}"
    )
    lines.append(
        f"Kendall's tau [95 %] of predicted with recorded accuracy, each network left out in turn: {p.left_out}; "
        f"{100 * p.covered:.0f} % of them lie in their 90 % interval"
    )
    macs = p.agreement.macs
    if not p.left_out.low > 0:
        lines.append(
            "THE RANKING IS NOT YET USABLE: that tau is indistinguishable from 0; train more of the space first"
        )
    elif macs and macs.tau >= p.left_out.tau:
        lines.append("MACs alone rank these networks as well: the larger is the better guess")
    from ffem_jax.reports.wording import describe_agreement

    told = describe_agreement(p.agreement)
    lines += [told] if told else []
    if len(p.networks) > 1:
        best = p.networks[0]
        overlapping = sum(network.accuracy_high >= best.accuracy_low for network in p.networks[1:])
        lines.append(
            f"The intervals of {overlapping} of the {len(p.networks) - 1} others listed overlap the first one's: these "
            "records do not order them. rank: the ranks compatible with the intervals, among all that fit."
        )
    lines.append(f"bytes and MACs listed are exact; those of the rest are predicted, to {100 * p.cost_error:.0f} %")
    if p.short:
        lines.append("the list is short: most of the best predicted are over the cap when traced; raise it")
    return lines


def write_csv(prediction: Prediction, space: SearchSpace, path: Path) -> None:
    """The list as CSV: the numbers, then one column per choice, empty where it does not apply."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = ("accuracy", "accuracy_low", "accuracy_high", "first_rank", "last_rank", "bytes", "macs", "recorded")
    names = [choice.name for choice in space.choices]
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow([*numbers, *names])
        for network in prediction.networks:
            writer.writerow([*(getattr(network, n) for n in numbers), *(network.point.get(n, "") for n in names)])
