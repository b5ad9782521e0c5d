"""`ffem <command>`: reads the words, calls the package, prints what came out.

Standard output holds results and nothing else; what is said on the way goes to standard error. Exit status:
0 done, 1 a trial failed, 2 bad usage, 130 interrupted. Everything heavy is imported by the command that uses it.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ffem_jax import __version__

if TYPE_CHECKING:
    from ffem_jax.records import TrialRecord

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """Words on the command line that mean nothing. One line."""


class Parser(argparse.ArgumentParser):
    """argparse, with an error in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; see {self.prog} --help")


# ----------------------------------------------------------------------------------- commands


def make_parser(command: str, description: str, overrides: bool = True) -> Parser:
    """A parser with what the commands share: overrides, --config-dir, --json."""
    epilog = describe_groups() if overrides else None
    parser = Parser(
        prog=f"ffem {command}",
        description=description,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if overrides:
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, such as arch=ffem_am")
        parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with config files of your own")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    return parser


def describe_groups() -> str:
    """The groups and their choices, for --help."""
    from ffem_jax.config import list_groups

    groups = "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in list_groups().items())
    return f"choices:\n{groups}\n\nvalues: any key of ffem train --cfg, such as arch.width_multiplier=0.5 or seed=1"


def train(words: Sequence[str]) -> int:
    """Train and evaluate one network."""
    parser = make_parser("train", "Train and evaluate one network; with -m, every combination of values.")
    parser.add_argument("-m", "--multirun", action="store_true", help="key=a,b means both; as a sweep without a name")
    parser.add_argument("--cfg", action="store_true", help="print the composed config and stop")
    options = parser.parse_intermixed_args(words)
    if options.multirun:
        return run_sweep("", options, ["train", *words])

    from ffem_jax.config import open_composer, to_application
    from ffem_jax.sweep import run_one

    with open_composer(options.config_dir) as composer:
        if options.cfg:
            from omegaconf import OmegaConf

            composer.parse(options.overrides)
            config = composer.compose(options.overrides)
            to_application(config)
            print(OmegaConf.to_yaml(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])), end="")
            return DONE
        with stdout_to_stderr(), say_how_to_go_on(["train", *words]):
            result = run_one(composer, options.overrides)
    if result.bad_input:
        return complain(result.error)
    if options.json:
        rows = [json.loads(record.to_json()) for record in result.records]
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
    else:
        for line in describe_results(result.records):
            print(line)
    if result.error:
        say(f"ffem: failed: {result.error}")
    return FAILED if result.error or any(r.status == "failed" for r in result.records) else DONE


def sweep(words: Sequence[str]) -> int:
    """Train the networks of sweeps/NAME.yaml; started again, it goes on."""
    from ffem_jax.config import find_sweep

    parser = make_parser("sweep", "Train the networks of sweeps/NAME.yaml; killed and started again, it goes on.")
    parser.add_argument("--list", action="store_true", help="the sweeps there are, and what each of them asks")
    options = parser.parse_intermixed_args(words)
    if options.list:
        return list_sweeps(options)
    if not options.overrides or "=" in options.overrides[0]:
        raise UsageError("which sweep? ffem sweep NAME [key=value ...]; ffem sweep --list names them")
    name = options.overrides.pop(0)
    find_sweep(name, options.config_dir)
    return run_sweep(name, options, ["sweep", *words])


def list_sweeps(options: argparse.Namespace) -> int:
    """Print each sweep's name and the first line of its head."""
    from ffem_jax.config import find_sweeps, read_question

    questions = {name: read_question(path) for name, path in sorted(find_sweeps(options.config_dir).items())}
    if options.json:
        print(json.dumps(questions))
    else:
        for name, question in questions.items():
            print(f"{name:12} {question}")
    return DONE


def run_sweep(name: str, options: argparse.Namespace, words: Sequence[str]) -> int:
    """Plan, launch and report a sweep; without a name, of the overrides alone."""
    from ffem_jax.config import open_composer
    from ffem_jax.progress import label_trials, read_recorded
    from ffem_jax.sweep import collect_records, launch_sweep, plan_sweep, prepare_sweep

    with open_composer(options.config_dir) as composer, stdout_to_stderr():
        plan = plan_sweep(composer, name, options.overrides, options.config_dir)
        prepare_sweep(plan)
        done = sum(record.status == "done" for record in read_recorded(plan.records_path, plan.trials))
        say(f"{len(plan.trials)} trials from {plan.combinations} combinations, {done} of them recorded as done")
        say(f"records: {plan.records_path}")
        with say_how_to_go_on(words):
            results = launch_sweep(composer, plan, say)
    records = collect_records(results)
    run = plan.jobs[0].run
    frontier = draw_frontier(records, plan.sweep_dir / "frontier", options.json, run.cap_mb, run.cap_precision)
    errors = [result.error for result in results if result.error]
    failed = [record for record in records if record.status == "failed"]
    if options.json:
        counts = {status: sum(r.status == status for r in records) for status in ("done", "over_cap", "failed")}
        paths = {"sweep_dir": str(plan.sweep_dir), "records": str(plan.records_path)}
        print(json.dumps({**paths, **counts, "errors": errors, "frontier": frontier}))
    say_over_cap_and_failed(records, errors, label_trials(plan.trials))
    return FAILED if failed or errors else DONE


def say_over_cap_and_failed(records: Sequence[TrialRecord], errors: Sequence[str], labels: dict[str, str]) -> None:
    """The trials that have no accuracy, and why."""
    from ffem_jax.progress import describe_record, identify

    for status, title in (("over_cap", "over the cap, not trained"), ("failed", "failed")):
        rows = [record for record in records if record.status == status]
        lines = [f"  {describe_record(row, labels.get(identify(row.spec), ''))} [{row.trial_key}]" for row in rows]
        lines += [f"  {error}" for error in errors] if status == "failed" else []
        if lines:
            say("\n".join([f"{title}: {len(lines)}", *lines]))


def draw_frontier(records: Sequence[TrialRecord], out: Path, as_json: bool, cap_mb: float, precision: str) -> Any:
    """Write the sweep's frontier and print its table; None where no trial has an accuracy yet."""
    from ffem_jax.frontier.report import FrontierError, write_frontier

    try:
        result = write_frontier(records, out, cap_mb=cap_mb, precision=precision)
    except FrontierError as error:
        say(f"no frontier: {error}")
        return None
    if not as_json:
        print_table(result.table)
        say(f"frontier: {out}")
    return result.to_dict()


def cost(words: Sequence[str]) -> int:
    """Parameters, MACs, bytes and peak activation of a network; trains nothing."""
    options = make_parser("cost", "What a network costs; trains nothing.").parse_intermixed_args(words)

    from ffem_jax.config import open_composer, to_specs

    with open_composer(options.config_dir) as composer:
        composer.parse(options.overrides)
        trial, run = to_specs(composer.compose(options.overrides))

    from ffem_jax.cost import compute_cost

    values = compute_cost(trial.arch, trial.data.resolution).to_dict()
    if options.json:
        print(json.dumps({"arch": trial.arch.name, "resolution": trial.data.resolution, **values}))
        return DONE

    from rich.table import Table

    table = Table(title=f"{trial.arch.name} at {trial.data.resolution} x {trial.data.resolution} pixels")
    table.add_column("what")
    table.add_column("how much", justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    size = values[f"bytes_{run.cap_precision}"]
    fits = "fits" if size <= run.cap_mb * 1e6 else "is over"
    table.caption = f"{size / 1e6:.2f} MB in {run.cap_precision} {fits} the cap of {run.cap_mb:g} MB"
    print_table(table)
    return DONE


def frontier(words: Sequence[str]) -> int:
    """Which networks no other beats in both size and accuracy: table, figure, report."""
    from ffem_jax.spec import PRECISIONS

    parser = make_parser("frontier", "The Pareto frontier of recorded trials: table, figure, report.", overrides=False)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="records.jsonl, or a folder with some")
    parser.add_argument("--cap-mb", type=float, default=10.0, help="the size limit, in MB of 10**6 bytes (10)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="bytes at this precision (float32)")
    parser.add_argument("--against", choices=("bytes", "params", "macs"), default="bytes", help="the cost (bytes)")
    parser.add_argument("--metric", choices=("accuracy", "accuracy_gallery"), default="accuracy")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: frontier/ beside the first records")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.frontier.report import write_frontier
    from ffem_jax.records import latest_records, read_records
    from ffem_jax.sweep import check_writable

    paths = find_records(options.records)
    records = latest_records(record for path in paths for record in read_records(path))
    out = options.out or paths[0].parent / "frontier"
    check_writable(out, "--out DIR")
    result = write_frontier(
        records,
        out,
        cap_mb=options.cap_mb,
        precision=options.precision,
        against=options.against,
        metric=options.metric,
    )
    if options.json:
        print(json.dumps(result.to_dict()))
    else:
        print_table(result.table)
        say(f"frontier: {out}")
    return DONE


def find_records(paths: Sequence[Path]) -> list[Path]:
    """The records files that `paths` name, folders searched. Raises UsageError for one that holds none."""
    found: list[Path] = []
    for path in paths:
        files = sorted(path.rglob("records.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path} holds no records.jsonl; give a records file or a sweep's folder")
        if not files[0].exists():
            raise UsageError(f"{path} does not exist; give a records file or a sweep's folder")
        found += files
    return found


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "sweep": sweep,
    "frontier": frontier,
    "cost": cost,
}

# ------------------------------------------------------------------------------------ talking


def say(text: str) -> None:
    """A line for the user, on standard error."""
    print(text, file=sys.stderr, flush=True)


def complain(message: str) -> int:
    """Say what is wrong with the command, in one line."""
    say(f"ffem: error: {' '.join(message.split())}")
    return BAD_USAGE


def print_table(table: Any) -> None:
    """A rich table on standard output; a file or a pipe gets every column in full."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def describe_results(records: Sequence[TrialRecord]) -> list[str]:
    """The lines `ffem train` ends with."""
    from ffem_jax.progress import describe_record

    lines = []
    for record in records:
        lines.append(describe_record(record))
        if record.status == "over_cap":
            lines.append("train it all the same with run.train_over_cap=true, or raise run.cap_mb")
        if record.trial_dir:
            lines.append(f"folder: {record.trial_dir}")
    return lines


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keep whatever libraries print while a trial runs away from the results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def say_how_to_go_on(words: Sequence[str]) -> Iterator[None]:
    """On Ctrl-C say that nothing is lost, then let it through."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"ffem: stopped; the same command goes on from here: ffem {shlex.join(words)}")
        raise


def help_text() -> str:
    """What `ffem --help` prints."""
    lines = [f"  {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ffem COMMAND ...",
            "",
            "Search small face-feature networks under a size limit.",
            "",
            *lines,
            "",
            "ffem COMMAND --help says more; ffem --version.",
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if words is None else words)
    warnings.showwarning = lambda message, *_, **__: say(f"ffem: warning: {message}")
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return DONE if words else BAD_USAGE
    if words[0] == "--version":
        print(f"ffem {__version__}")
        return DONE
    command = COMMANDS.get(words[0])
    if command is None:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(COMMANDS)}"
        return complain(f"there is no command {words[0]!r}; {hint}")
    try:
        return command(words[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    except (UsageError, ValueError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") or not is_expected(error):
            raise
        return complain(str(error))


def is_expected(error: Exception) -> bool:
    """Whether the error is the package's own word to the user, and not a mistake in the package."""
    return isinstance(error, UsageError | OSError) or type(error).__module__.startswith("ffem_jax.")


if __name__ == "__main__":
    sys.exit(main())
