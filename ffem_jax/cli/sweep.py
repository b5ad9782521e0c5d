"""`ffem sweep NAME [key=value ...]`: trains the networks for a question and plots their frontier."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.sweep_plan import add_plan, check_plan, print_plan
from ffem_jax.cli.terminal import (
    DONE,
    FAILED,
    OverridesParser,
    UsageError,
    keep_stdout_clean,
    print_table,
    say,
    say_how_to_go_on,
)
from ffem_jax.text.tables import print_prose

if TYPE_CHECKING:
    from ffem_jax.config.compose import Composer
    from ffem_jax.records.record import TrialRecord
    from ffem_jax.reports.html.live import LivePage
    from ffem_jax.specs.trial import RunSpec


def run(words: Sequence[str]) -> int:
    """Train the networks of sweeps/NAME.yaml."""
    from ffem_jax.config.compose import find_sweep

    parser = OverridesParser(
        "sweep NAME", "Train the networks of sweeps/NAME.yaml. If interrupted, run it again to resume."
    )
    parser.add_argument("--list", action="store_true", help="list the available sweeps and their questions")
    parser.add_argument("--cfg", action="store_true", help="print the composed config and the swept values, then stop")
    add_plan(parser)
    options = parser.parse_intermixed_args(words)
    check_plan(options)
    if options.list:
        return list_sweeps(options)
    if not options.overrides or "=" in options.overrides[0]:
        raise UsageError("which sweep? ffem sweep NAME [key=value ...]; ffem sweep --list names them")
    name = options.overrides.pop(0)
    find_sweep(name, options.config_dir)
    if options.cfg:
        return print_config(name, options)
    if options.plan:
        return print_plan(name, options)
    return run_sweep(name, options, ["sweep", *words])


def list_sweeps(options: argparse.Namespace) -> int:
    """Print each sweep's name and the question it asks."""
    from ffem_jax.config.compose import find_sweeps, read_question

    questions = {name: read_question(path) for name, path in sorted(find_sweeps(options.config_dir).items())}
    if options.json:
        print(json.dumps(questions))
    else:
        for name, question in questions.items():
            print_prose(f"{name:12} {question}", indent=13)
    return DONE


def print_config(name: str, options: argparse.Namespace) -> int:
    """Print the validated config shared by the sweep's trials, and the swept values, as YAML or JSON."""
    from omegaconf import OmegaConf

    from ffem_jax.config.compose import SWEEP_GROUP, find_sweep, open_composer, to_application

    with open_composer(options.config_dir) as composer:
        composer.register_sweep(name, find_sweep(name, options.config_dir))
        user = composer.parse(options.overrides)
        fixed = [str(one.input_line) for one in user if not one.is_sweep_override()]
        config = composer.compose([f"+{SWEEP_GROUP}={name}", *fixed], multirun=True)
        sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        plain = dataclasses.asdict(to_application(config))
    # A user's override replaces the sweep's values for the same key.
    taken = {one.key_or_group for one in user}
    params = {key: values for key, values in (sweeper.get("params") or {}).items() if key not in taken}
    params |= {one.key_or_group: str(one.input_line).partition("=")[2] for one in user if one.is_sweep_override()}
    shown = {key: value for key, value in sweeper.items() if not key.startswith("_") and key != "max_batch_size"}
    plain["hydra"] = {"sweeper": {**shown, "params": params}}
    print(json.dumps(plain) if options.json else OmegaConf.to_yaml(OmegaConf.create(plain)).rstrip())
    return DONE


@dataclass(frozen=True)
class Swept:
    """The result of a sweep or a search. labels: short names that distinguish its networks, by `progress.identify`."""

    records: list[TrialRecord]
    errors: list[str]
    sweep_dir: Path
    records_path: Path
    run: RunSpec
    page: LivePage
    labels: dict[str, str]
    counts: dict[str, int]


def run_sweep(name: str, options: argparse.Namespace, words: Sequence[str]) -> int:
    """Plan, launch and report the sweep `name`; without a name, the sweep given by the overrides."""
    from ffem_jax.analysis.summary import describe_chance
    from ffem_jax.config.compose import open_composer
    from ffem_jax.records.record import STATUSES
    from ffem_jax.search.plan import is_search

    with open_composer(options.config_dir) as composer, keep_stdout_clean():
        # Resolved once, here: a worker in another folder would resolve other paths.
        options.overrides = composer.settle(options.overrides)
        searching = is_search(composer, name, options.overrides, options.config_dir)
        swept = (search if searching else sweep_all)(composer, name, options, words)
    records, errors = swept.records, swept.errors
    frontier_dir = swept.sweep_dir / "frontier"
    drawn = draw_frontier(records, frontier_dir, swept.run.cap_mb, swept.run.cap_precision)
    written = swept.page.write(records)
    if options.json:
        counts = {status: sum(r.status == status for r in records) for status in STATUSES}
        paths = {"sweep_dir": str(swept.sweep_dir), "records": str(swept.records_path)}
        frontier = drawn.to_dict() if drawn else None
        results = {"errors": errors, "frontier": frontier, "report": str(swept.page.path) if written else None}
        print(json.dumps({**paths, **counts, **swept.counts, **results}))
    elif drawn:
        print_table(drawn.table)
        if chance := describe_chance(drawn.networks):
            say(chance)
        say(f"frontier: {frontier_dir}")
    if written:
        say(f"report: {swept.page.path}")
    if seconds := describe_seconds(records):
        say(seconds)
    for line in describe_untrained(records, errors, swept.labels):
        say(line)
    return FAILED if errors or any(record.status == "failed" for record in records) else DONE


def sweep_all(composer: Composer, name: str, options: argparse.Namespace, words: Sequence[str]) -> Swept:
    """Train every combination."""
    from ffem_jax.runs.progress import label_trials, read_recorded
    from ffem_jax.runs.sweep import collect_records, launch_sweep, plan_sweep, prepare_sweep

    plan, notes = prepare_sweep(plan_sweep(composer, name, options.overrides, options.config_dir))
    for note in notes:
        say(note)
    done = sum(record.status == "done" for record in read_recorded(plan.records_path, plan.keys))
    say(f"{len(plan.trials)} trials from {plan.combinations} combinations, {done} of them recorded as done")
    say(f"records: {plan.records_path}")
    run = plan.jobs[0].run
    page = open_page(
        name, options, plan.sweep_dir, run, lambda: read_recorded(plan.records_path, plan.keys), len(plan.trials)
    )
    with say_how_to_go_on(words):
        results = launch_sweep(composer, plan, page.follow)
    errors = [result.error for result in results if result.error]
    labels = label_trials(plan.trials)
    return Swept(collect_records(results), errors, plan.sweep_dir, plan.records_path, run, page, labels, {})


def search(composer: Composer, name: str, options: argparse.Namespace, words: Sequence[str]) -> Swept:
    """Train as many networks as the search's budget holds, those that its sampler proposes."""
    from ffem_jax.search.plan import plan_search
    from ffem_jax.search.workers.launch import launch_search, prepare_search

    plan = plan_search(composer, name, options.overrides, options.config_dir)
    for note in prepare_search(plan):
        say(note)
    page = open_page(name, options, plan.sweep_dir, plan.run, plan.read_records, plan.settings.n_trials)
    with say_how_to_go_on(words):
        study = launch_search(composer, plan, page.follow, options.config_dir)
    ledger = study.read_ledger()
    counts = {status: ledger.count(status) for status in ("refused", "repeated", "lost")}
    records = plan.read_records()
    return Swept(records, [], plan.sweep_dir, plan.records_path, plan.run, page, {}, counts)


def open_page(
    name: str,
    options: argparse.Namespace,
    sweep_dir: Path,
    run: RunSpec,
    read: Callable[[], list[TrialRecord]],
    planned: int,
) -> LivePage:
    """The page of a sweep or search, renewed while it runs; its question is the first line of the sweep's file."""
    from ffem_jax.config.compose import find_sweep, read_question
    from ffem_jax.reports.html.live import LivePage

    known = {"title": name, "question": read_question(find_sweep(name, options.config_dir)) if name else ""}
    cap = {"cap_mb": run.cap_mb, "precision": run.cap_precision}
    return LivePage(sweep_dir / "report.html", read, planned, say, **known, **cap)


def draw_frontier(records: Sequence[TrialRecord], out: Path, cap_mb: float, precision: str) -> Any:
    """Write the frontier of the sweep's own trials; None, and a line that says why, where there is none."""
    from ffem_jax.analysis.comparability import FrontierError
    from ffem_jax.reports.frontier import write_frontier

    try:
        drawn = write_frontier(records, out, cap_mb=cap_mb, precision=precision)
    except FrontierError as error:
        say(f"no frontier: {error}")
        return None
    for note in drawn.notes:
        say(f"ffem: warning: {note}")
    return drawn


def describe_seconds(records: Sequence[TrialRecord]) -> str:
    """What the trained trials took, compiling apart; added up, though a launcher may run them side by side."""
    # The seeds of one program share its folder, and their times.
    trained = {record.trial_dir: record for record in records if record.compile_seconds is not None}.values()
    if not trained:
        return ""
    wall = sum(record.wall_seconds or 0.0 for record in trained)
    compiling = sum(record.compile_seconds or 0.0 for record in trained)
    return f"trials took {wall / 60:.1f} min, added up; {compiling / 60:.1f} min of it tracing and compiling"


def describe_untrained(records: Sequence[TrialRecord], errors: Sequence[str], labels: dict[str, str]) -> list[str]:
    """The trials that have no final accuracy, and why: those stopped early, those over the cap, those that failed."""
    from ffem_jax.runs.progress import describe_record, identify

    lines = []
    if pruned := sum(record.status == "pruned" for record in records):
        lines.append(f"pruned before the end: {pruned}")  # often most of a search; frontier.json names them
    for status, title in (("over_cap", "over the cap"), ("failed", "failed")):
        rows = [record for record in records if record.status == status]
        found = [f"  {describe_record(row, labels.get(identify(row.spec), ''))} [{row.trial_key}]" for row in rows]
        found += [f"  {error}" for error in errors] if status == "failed" else []
        lines += [f"{title}: {len(found)}", *found] if found else []
    return lines
