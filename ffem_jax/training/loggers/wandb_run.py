"""A board as a Weights & Biases run: on its server if there is a key, else in files that `wandb sync` uploads."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from ffem_jax.records.record import TrialRecord
from ffem_jax.training.loggers.board import BoardError, Numbers, list_settings, name_trial

PROJECT = "ffem"  # unless WANDB_PROJECT names another
MODES = ("offline", "online", "shared", "disabled")
# Timeouts for an unreachable server. What is missing there is on disk, and `wandb sync` uploads it.
START_SECONDS, FINISH_SECONDS = 30.0, 60.0
RESULT = "result/"
ENDED_WELL = ("done", "pruned")


class WandbRun:
    """A run of the project `ffem`, in `wandb/` in the trial's folder.

    WANDB_MODE decides whether it is uploaded at once. If unset, it is uploaded if there is an API key; without one the
    run is offline, without a login prompt. Code, console, packages, host and machine load are not logged.

    A trial that resumes in its folder continues its run. Offline, the run is rewritten with all steps and replaces the
    earlier files. On the server a step cannot be changed: if a number differs from the stored one (the checkpoint was
    lost, or another processor computes), a new run starts and the old one stays. `retrain` also starts a new run.
    """

    def __init__(self, record: TrialRecord, out_dir: Path, retrain: bool = False) -> None:
        import wandb

        self.wandb: Any = wandb
        self.record, self.folder = record, out_dir.absolute() / "wandb"
        self.mode = choose_mode(wandb)
        self.notes = self.folder / f"{name_trial(record)}.json"
        self.run_id, self.known = _new_id(), {}  # type: str, dict[tuple[str, int], float]
        if not retrain:
            self._read_notes()
        self.run: Any = self._open()

    def _read_notes(self) -> None:
        """Read the id and the numbers of the run that this folder's trial had."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            run_id, known = str(notes["id"]), {(str(name), int(step)): float(value) for name, step, value in
                                               notes["numbers"]}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return  # a new run; at worst the old one stays beside it
        self.run_id = run_id
        # The numbers can be skipped only if the run was online and still is; an offline run is rewritten in full.
        self.known = known if self.mode == "online" and notes.get("mode") == "online" else {}

    def _open(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.mode == "offline":
            for old in self.folder.glob(f"offline-run-*-{self.run_id}"):
                shutil.rmtree(old)
        settings = self.wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=START_SECONDS,
            finish_timeout=FINISH_SECONDS,
        )
        run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name_trial(self.record),
            id=self.run_id,
            # Each trial of this process has its own run, and a script's own run is not touched.
            reinit="create_new",
            resume="allow" if self.mode == "online" else None,
            mode=self.mode,
            dir=str(self.folder.parent),
            config={**list_settings(self.record), "trial_key": self.record.trial_key},
            settings=settings,
        )
        self._write_notes()
        return run

    def _write_notes(self) -> None:
        numbers = [[name, step, value] for (name, step), value in self.known.items()]
        begun = self.notes.with_name(self.notes.name + ".new")
        begun.write_text(json.dumps({"id": self.run_id, "mode": self.mode, "numbers": numbers}), encoding="utf-8")
        begun.replace(self.notes)

    def write(self, numbers: Numbers) -> None:
        """Log the missing steps, each complete: Weights & Biases accepts steps in order only."""
        curves = {one: value for one, value in numbers.items() if not one[0].startswith(RESULT)}
        if any(not _are_equal(self.known[one], value) for one, value in curves.items() if one in self.known):
            self._replace()
        steps: dict[int, dict[str, float]] = {}
        for (name, step), value in curves.items():
            if (name, step) not in self.known:
                steps.setdefault(step, {})[name] = value
        for step, values in sorted(steps.items()):
            self.run.log(values, step=step, commit=True)
            self.known.update({(name, step): value for name, value in values.items()})
        if steps:
            self._write_notes()

    def _replace(self) -> None:
        self.run.finish(exit_code=1)
        self.run_id, self.known = _new_id(), {}
        self.run = self._open()

    def close(self, numbers: Numbers, outcome: str) -> None:
        """Log the missing steps, the results as the run's summary, and how the trial ended."""
        if numbers:
            self.write(numbers)
        results = {name: value for (name, _), value in numbers.items() if name.startswith(RESULT)}
        self.run.summary.update({**results, "status": outcome})
        self.run.finish(exit_code=0 if outcome in ENDED_WELL else 1)


def choose_mode(wandb: Any) -> str:
    """Return WANDB_MODE, else online if there is a key and offline if not. Raises BoardError for an unknown mode."""
    named = os.environ.get("WANDB_MODE", "").strip().lower()
    if named in ("dryrun", "run"):  # names in older versions
        named = {"dryrun": "offline", "run": "online"}[named]
    if named and named not in MODES:
        raise BoardError(f"WANDB_MODE={named} is not a mode of Weights & Biases; set one of: {', '.join(MODES)}")
    if named:
        return named
    # Neither prompts for a key nor contacts the server.
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _are_equal(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or math.isclose(a, b, rel_tol=1e-9)
