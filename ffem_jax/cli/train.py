"""`ffem train [key=value ...]`: trains one network, or with -m every combination."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffem_jax.cli.sweep_plan import add_plan, check_plan, print_plan
from ffem_jax.cli.terminal import (
    DONE,
    FAILED,
    OverridesParser,
    UsageError,
    keep_stdout_clean,
    say,
    say_how_to_go_on,
    show,
)

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord
    from ffem_jax.runs.sweep import JobResult


def run(words: Sequence[str]) -> int:
    """Train and evaluate one network."""
    parser = OverridesParser("train", "Train and evaluate one network; with -m, every combination of values.")
    parser.add_argument("-m", "--multirun", action="store_true", help="key=a,b trains both: a sweep without a name")
    parser.add_argument("--cfg", action="store_true", help="print the composed config and stop")
    add_plan(parser)
    options = parser.parse_intermixed_args(words)
    check_plan(options)
    if options.cfg and options.multirun:
        raise UsageError("--cfg prints one config and -m trains several; give only one of them")
    if options.cfg:
        return print_config(options)
    if options.plan:
        if not options.multirun:
            refuse_several(options)
        return print_plan("", options)
    if options.multirun:
        from ffem_jax.cli.sweep import run_sweep

        return run_sweep("", options, ["train", *words])

    from ffem_jax.config.compose import open_composer
    from ffem_jax.machine.hosts import is_first
    from ffem_jax.runs.sweep import run_one

    with open_composer(options.config_dir) as composer, keep_stdout_clean(), say_how_to_go_on(["train", *words]):
        result = run_one(composer, options.overrides, say)
    if result.bad_input:
        raise UsageError(result.error)
    if is_first():  # of several processes only the first reports
        print_result(result, options.json)
    if result.error:
        say(f"ffem: failed: {result.error}")
    return FAILED if result.error or any(record.status == "failed" for record in result.records) else DONE


def print_result(result: JobResult, as_json: bool) -> None:
    """Print the records of one job, and its folder."""
    if as_json:
        rows = [json.loads(record.to_json()) for record in result.records]
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
        return
    for line in describe_results(result.records):
        show(line)
    show(f"folder: {result.out_dir}", whole=True)


def refuse_several(options: argparse.Namespace) -> None:
    """Raise ConfigError if a key has several values, since this trains one network."""
    from ffem_jax.config.compose import open_composer
    from ffem_jax.config.overrides import refuse_sweeps

    with open_composer(options.config_dir) as composer:
        composer.parse(options.overrides)
        refuse_sweeps(composer.settle(options.overrides))


def print_config(options: argparse.Namespace) -> int:
    """Print the composed and validated config as YAML or JSON, without Hydra's own part."""
    from omegaconf import OmegaConf

    from ffem_jax.config.compose import open_composer, to_application

    with open_composer(options.config_dir) as composer:
        composer.parse(options.overrides)
        plain = dataclasses.asdict(to_application(composer.compose(options.overrides)))
    print(json.dumps(plain) if options.json else OmegaConf.to_yaml(OmegaConf.create(plain)).rstrip())
    return DONE


def describe_results(records: Sequence[TrialRecord]) -> list[str]:
    """Return the closing lines of the command."""
    from ffem_jax.runs.progress import describe_record

    lines = []
    for record in records:
        lines.append(describe_record(record))
        if record.status == "over_cap":
            lines.append("to train it anyway, set run.train_over_cap=true, or raise run.cap_mb or run.cap_mmacs")
        if record.status == "pruned":
            lines.append("the same command without run.stop_epoch, or with a later one, resumes from there")
    return lines
