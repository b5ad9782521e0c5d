"""`ffem sweep NAME --plan` and `ffem train --plan`: the cost and the power of a sweep; trains nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.recorded import find_records
from ffem_jax.cli.terminal import DONE, UsageError, keep_stdout_clean, print_table, say, show
from ffem_jax.reports.sweep_plan import describe_differences, describe_plan
from ffem_jax.text.tables import Column, make_table, print_prose

if TYPE_CHECKING:
    from ffem_jax.analysis.power import Chance
    from ffem_jax.config.compose import Composer
    from ffem_jax.records.record import TrialRecord
    from ffem_jax.runs.detectable import DetectableFactor
    from ffem_jax.runs.pace import Pace
    from ffem_jax.runs.plan import Forecast
    from ffem_jax.specs.trial import RunSpec, TrialSpec

# Networks sampled from a search space.
SAMPLES = 12
NAMED_AT_MOST = 10


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The arguments --plan and --records."""
    parser.add_argument(
        "--plan", action="store_true",
        help="print trials, sizes, disk, hours and the detectable differences; train nothing",
    )  # fmt: skip
    parser.add_argument(
        "--records", action="append", default=[], type=Path, metavar="RECORDS",
        help="with --plan: use the times and results in these records too, besides the sweep's own; may be repeated",
    )  # fmt: skip


def check_plan(options: argparse.Namespace) -> None:
    """Raise UsageError for options that conflict, or have no effect without --plan."""
    if options.plan and options.cfg:
        raise UsageError("--cfg prints a config and --plan a plan; give only one of them")
    if (options.records or options.plan) and getattr(options, "list", False):
        raise UsageError("--list lists the sweeps and --plan plans one; give only one of them")
    if options.records and not options.plan:
        raise UsageError("--records needs --plan; to set the file that trials are recorded in, use run.records=FILE")


def print_plan(name: str, options: argparse.Namespace) -> int:
    """Print the plan of the sweep `name`; without a name, of the sweep given by the overrides."""
    from ffem_jax.config.compose import open_composer
    from ffem_jax.search.plan import is_search

    with open_composer(options.config_dir) as composer, keep_stdout_clean():
        options.overrides = composer.settle(options.overrides)
        searching = is_search(composer, name, options.overrides, options.config_dir)
        plan = (_plan_search if searching else _plan_sweep)(composer, name, options)
    if options.json:
        print(json.dumps(plan))
        return DONE
    print_table(make_table(["what", Column("how much", fold=True)], describe_plan(plan)))
    for line in describe_differences(plan):
        print_prose(line)
    if plan["refused"]:
        drawn = f" of {plan['sampled']} drawn" if plan["kind"] == "search" else ""
        show(f"over the cap: {len(plan['refused'])}{drawn}")
        for one in plan["refused"][:NAMED_AT_MOST]:
            show(f"  {one['network']} at {one['resolution']} pixels: {one['reason']}")
        if (more := len(plan["refused"]) - NAMED_AT_MOST) > 0:
            show(f"  and {more} more; --json has all")
    for note in plan["notes"]:
        say(f"ffem: warning: {note}")
    return DONE


def _plan_sweep(composer: Composer, name: str, options: argparse.Namespace) -> dict[str, Any]:
    from ffem_jax.runs.detectable import find_detectable
    from ffem_jax.runs.sweep import plan_sweep

    plan = plan_sweep(composer, name, options.overrides, options.config_dir)
    run, launcher = plan.jobs[0].run, plan.config.launcher
    recorded = _read(plan.records_path, options.records)
    forecast = _forecast(plan.trials, run, launcher, recorded)
    chance = _find_chance(forecast, recorded)
    factors = find_detectable(forecast.trained, forecast.faces, chance)
    return {
        "sweep": name,
        "kind": "sweep",
        "combinations": plan.combinations,
        **_describe_forecast(forecast, run, launcher),
        "records": str(plan.records_path),
        "assumption": chance.source,
        "differences": [_describe_factor(factor) for factor in factors],
    }


def _plan_search(composer: Composer, name: str, options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from ffem_jax.config.compose import ConfigError
    from ffem_jax.runs.plan import count_at_a_time
    from ffem_jax.search.candidates import CandidateMaker
    from ffem_jax.search.plan import plan_search
    from ffem_jax.specs.architecture import SpecError
    from ffem_jax.specs.trial import trial_key

    plan = plan_search(composer, name, options.overrides, options.config_dir)
    maker, random = CandidateMaker(composer, plan.fixed, plan.space), np.random.default_rng(0)
    sampled: dict[str, TrialSpec] = {}
    for _ in range(10 * SAMPLES):
        try:
            trial, _run = maker.compose(plan.space.sample(random))
        except (ConfigError, SpecError):
            continue  # not a network of the space: the search rejects it as well
        sampled.setdefault(trial_key(trial), trial)
        if len(sampled) == SAMPLES:
            break
    recorded = _read(plan.records_path, options.records)
    forecast = _forecast(list(sampled.values()), plan.run, plan.config.launcher, recorded)
    row = _describe_forecast(forecast, plan.run, plan.config.launcher)
    seeds, settings = len(plan.run.seeds) or 1, plan.settings
    count, sampled_trials = settings.n_trials * seeds, max(1, forecast.trials)
    scale = count / sampled_trials
    done = sum(record.status == "done" for record in plan.read_records())
    left = max(0.0, 1 - done / max(1, count))
    # On this machine the workers of a search are processes, regardless of the launcher.
    launcher = plan.config.launcher
    name_of_launcher = "joblib" if launcher.name == "local" else launcher.name
    at_a_time = count_at_a_time(name_of_launcher, min(plan.workers, count), plan.run.cores)
    hours = None if row["hours"] is None else row["hours"] * forecast.at_a_time / at_a_time * scale
    return {
        "sweep": name,
        "kind": "search",
        **row,
        "trials": count,
        "trials_done": min(done, count),
        "networks": settings.n_trials,
        "space": plan.space.size,
        "sampled": len(sampled),
        "sampler": settings.sampler,
        "n_epochs": settings.n_epochs,
        "rungs": list(plan.rungs),
        "at_a_time": at_a_time,
        "pretrainings": round(row["pretrainings"] * settings.n_trials / sampled_trials),
        "pretrainings_left": round(row["pretrainings_left"] * settings.n_trials / sampled_trials),
        "disk_total_bytes": None if row["disk_total_bytes"] is None else round(row["disk_total_bytes"] * scale),
        "hours": hours,
        "hours_left": None if hours is None else hours * left,
        "records": str(plan.records_path),
        "assumption": "",
        "differences": [],
    }


def _read(own: Path, others: Sequence[Path]) -> list[TrialRecord]:
    """The sweep's own records, those of its pretrainings, and those given by --records."""
    from ffem_jax.records.record import read_records
    from ffem_jax.runs.progress import PRETRAINING_FOLDER, PRETRAINING_RECORDS

    paths = [own, own.parent / PRETRAINING_FOLDER / PRETRAINING_RECORDS]
    return [
        record for path in [*(p for p in paths if p.exists()), *find_records(others)] for record in read_records(path)
    ]


def _forecast(trials: Sequence[TrialSpec], run: RunSpec, launcher: Any, recorded: Sequence[TrialRecord]) -> Forecast:
    from ffem_jax.runs.pace import measure_pace, read_pace
    from ffem_jax.runs.plan import count_at_a_time, forecast_trials

    def find_pace(ends: Sequence[tuple[TrialSpec, int, int]]) -> Pace:
        known = read_pace(recorded, run.cores, {trial.recipe.precision for trial, *_ in ends})
        if known is None:
            say("timing some training steps of the smallest and the largest network; --records RECORDS avoids this")
        return known or measure_pace(ends, run.cores)

    at_a_time = count_at_a_time(launcher.name, launcher.jobs, run.cores)
    return forecast_trials(trials, run, at_a_time=at_a_time, recorded=recorded, find_pace=find_pace)


def _find_chance(forecast: Forecast, recorded: Sequence[TrialRecord]) -> Chance:
    """Estimate chance from records of the same data set, or fall back to an assumption."""
    from ffem_jax.analysis.power import ASSUMED, estimate_chance
    from ffem_jax.runs.detectable import map_people

    names = {data.name for data, _ in forecast.faces}
    own = [record for record in recorded if record.data in names]
    return estimate_chance(own, map_people(forecast.faces)) or ASSUMED


# ---------------------------------------------------------------------------------------- as JSON


def _describe_forecast(forecast: Forecast, run: RunSpec, launcher: Any) -> dict[str, Any]:
    trained = [one for one in forecast.networks if not one.refused]
    sizes = [one.size for one in trained]
    faces = [
        {
            "data": data.name,
            "resolution": data.resolution,
            "protocol": protocol.name,
            "fold": protocol.fold,
            "split_seed": protocol.split_seed,
            "train_images": count.train,
            "test_images": len(count.test),
            "people": count.num_classes,
        }
        for (data, protocol), count in forecast.faces.items()
    ]
    work, first = forecast.work, forecast.pretraining
    return {
        "trials": forecast.trials,
        "trials_done": forecast.done,
        "networks": len(trained),
        "precision": run.cap_precision,
        "cap_mb": run.cap_mb,
        "bytes": [min(sizes), max(sizes)] if sizes else None,
        "macs": [min(one.macs for one in trained), max(one.macs for one in trained)] if trained else None,
        "refused": [
            {"network": one.name, "resolution": one.resolution, "trials": one.trials, "reason": one.refused}
            for one in forecast.networks
            if one.refused
        ],
        "faces": faces,
        "pretrainings": first.trainings,
        "pretrainings_left": first.left,
        "launcher": str(launcher.name),
        "jobs": int(launcher.jobs),
        "at_a_time": forecast.at_a_time,
        "steps": list(forecast.steps) if forecast.steps else None,
        "disk_bytes": list(forecast.disk) if forecast.disk else None,
        "disk_total_bytes": forecast.disk_total,
        "trial_seconds": [work.shortest, work.longest] if work.shortest is not None else None,
        "pretraining_seconds": [first.shortest, first.longest] if first.shortest is not None else None,
        "compile_seconds": forecast.pace.compile_seconds if forecast.pace else None,
        "hours": forecast.hours,
        "hours_left": forecast.hours_left,
        "timing": forecast.pace.source if forecast.pace else "",
        "notes": list(forecast.notes),
    }


def _describe_factor(factor: DetectableFactor) -> dict[str, Any]:
    import dataclasses

    rows = [dataclasses.asdict(row) for row in factor.rows]
    return {"factor": factor.factor, "smallest": factor.smallest, "largest": factor.largest, "rows": rows}
