"""The training of one trial, or of one network's seeds as one program, in three steps: fit, embed, fill the record.

Each takes values and returns values. What decides whether a trial is trained at all is in `trial`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.data import Faces
from ffem_jax.data.bins import Bins
from ffem_jax.data.protocols import Split
from ffem_jax.data.recorded import KnownFaces, describe_faces
from ffem_jax.machine import hosts
from ffem_jax.machine.hosts import describe_error
from ffem_jax.machine.processor import find_processor
from ffem_jax.records.record import TrialRecord
from ffem_jax.runs.interrupts import raise_if_interrupted
from ffem_jax.specs.architecture import resolve_network
from ffem_jax.specs.trial import RunSpec, TrialSpec
from ffem_jax.teachers import Teaching

if TYPE_CHECKING:
    import numpy as np

    from ffem_jax.training.trainer import History, Position, Trainer, Training

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialInputs:
    """What a trial is made of, the faces looked up, and the folder that keeps what it leaves."""

    trial: TrialSpec
    run: RunSpec
    faces: Faces
    split: Split
    out_dir: Path
    teaching: Teaching | None = None


@dataclass(frozen=True)
class Embedded:
    """What a trained network makes of the images that it is evaluated on.

    Args:
        indices: int [image], which images: under view2 those of all pairs, under open_set the test images, under bins
            those of all its sets, else the test images and then the training images.
        embeddings: float32 [seed, image, embedding_dim].
        logits: float32 [seed, image, num_classes], of the test images that a classifier knows.
    """

    indices: np.ndarray
    embeddings: np.ndarray
    logits: np.ndarray


def fit(
    inputs: TrialInputs,
    records: Sequence[TrialRecord],
    *,
    pretrain: Callable[[], Mapping[str, np.ndarray]],
    on_epoch: Callable[[int, History], None],
) -> tuple[Trainer, Training]:
    """Train the seeds of `records` as one program, from the checkpoint in the folder if it is theirs.

    Of several processes all train, and the first alone reads and writes the folder and draws the bar.

    Args:
        pretrain: gives the weights that a trial with a pretraining starts from; called where no checkpoint is found.
        on_epoch: called with (epochs done, history) after each epoch, the checkpoint being under way.

    Raises:
        SpecError: the batch is larger than the training side.
    """
    from ffem_jax.training.checkpoint import TrialCheckpoint
    from ffem_jax.training.progress_bar import TrainingBar, say, show_activity
    from ffem_jax.training.trainer import Trainer

    trial, run, faces, split = inputs.trial, inputs.run, inputs.faces, inputs.split
    keys = [record.trial_key for record in records]
    first, shows = hosts.is_first(), run.progress and hosts.is_first()
    if first:
        specs = {"keys": keys, "specs": [record.spec for record in records]}
        (inputs.out_dir / "trial.json").write_text(json.dumps(specs, indent=1) + "\n")
    network, seeds = resolve_network(trial.arch), [record.seed for record in records]
    # Where nothing is held out of training, the test images are looked at after each epoch; view2 and open_set have no
    # such number, since the classifier knows nobody who is tested.
    validation = split.validation if len(split.validation) or split.tests_strangers else split.test
    with show_activity(f"{trial.arch.name}: compiling", enabled=shows):
        targets = inputs.teaching.targets if inputs.teaching else None
        trainer = Trainer(
            network, trial.recipe, seeds, faces.images, faces.labels, split.train, validation, targets,
            images_per_epoch=trial.data.images_per_epoch, feed=run.load == "stream", devices=run.devices,
        )  # fmt: skip
    if first and trainer.idle:
        say(trainer.idle)
    checkpoint = TrialCheckpoint(inputs.out_dir / "checkpoint", keys) if run.checkpoint and first else None
    try:
        restored = checkpoint.restore(trainer.abstract_state) if checkpoint and not run.retrain else None
        restored = _find_start(trainer, restored, pretrain if trial.pretraining else None)

        def finish_epoch(epochs: int, state: Any, history: History) -> None:
            if checkpoint:
                checkpoint.save(epochs, state, history)
            on_epoch(epochs, history)
            raise_if_interrupted()

        def keep_position(position: Position) -> None:
            if checkpoint and run.checkpoint_minutes and checkpoint.seconds_since_save >= 60 * run.checkpoint_minutes:
                checkpoint.save(*position)

        with TrainingBar(trial, trainer.steps_per_epoch, enabled=shows) as bar:
            training = trainer.fit(
                restored=restored,
                stop_epoch=run.stop_epoch,
                on_epoch=finish_epoch,
                on_steps=keep_position,
                on_progress=lambda epoch, step, loss, speed: bar.update(
                    epoch, step, loss, speed, trainer.data_wait_fraction
                ),
            )
    finally:
        trainer.close()
        if checkpoint:
            checkpoint.close()
    return trainer, training


def _find_start(
    trainer: Trainer,
    restored: Position | None,
    pretrain: Callable[[], Mapping[str, np.ndarray]] | None,
) -> Position | None:
    """Where training goes on from, in each process where the first is; None to begin."""
    import jax
    import numpy as np

    from ffem_jax.training.checkpoint import list_metrics, read_metrics
    from ffem_jax.training.pretraining import start_from
    from ffem_jax.training.trainer import History, Position

    if pretrain and not hosts.tell(restored is not None):
        pretrained, state = pretrain(), trainer.init()
        started = start_from(state, pretrained) if hosts.is_first() else state
        restored = Position(0, started, trainer.start_history())
    if hosts.count() == 1:
        return restored
    facts = hosts.tell(
        restored
        and {
            "epochs": restored.epochs,
            "history": dataclasses.asdict(restored.history),
            "step": restored.step,
            "metrics": list_metrics(restored.metrics),
        }
    )
    if facts is None:
        return None
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), trainer.abstract_state)
    state = hosts.share(jax.device_get(restored.state) if restored else blank)
    history, metrics = History(**facts["history"]), read_metrics(facts["metrics"])
    return Position(facts["epochs"], state, history, facts["step"], metrics)


def embed(trainer: Trainer, training: Training, split: Split) -> Embedded:
    """Embed all images that the trained network is evaluated on."""
    import numpy as np

    if split.bins:
        return _embed_bins(trainer, training, split.bins)
    if split.pairs:
        indices = np.unique([split.pairs.first, split.pairs.second])
    elif split.probes is not None:
        indices = split.test
    else:
        indices = np.concatenate([split.test, split.train])
    # Of the gallery embeddings are enough: the logits of a large set would be most of the memory.
    known = 0 if split.tests_strangers else len(split.test)
    embeddings, logits = trainer.embed(training.state, indices, logits_of=known)
    seeds = len(trainer.seeds)
    return Embedded(
        indices,
        embeddings.reshape(seeds, len(indices), embeddings.shape[-1]),
        logits.reshape(seeds, known, logits.shape[-1]),
    )


def _embed_bins(trainer: Trainer, training: Training, bins: Bins) -> Embedded:
    """Each image and its mirror image, added, of all sets one after another; no logits."""
    import numpy as np

    parts = [
        trainer.embed_images(training.state, one.images).astype(np.float64)
        + trainer.embed_images(training.state, one.images[:, :, ::-1])
        for one in bins.sets
    ]
    embeddings = np.concatenate(parts, axis=-2)
    count = embeddings.shape[-2]
    shape = (len(trainer.seeds), count, -1)
    return Embedded(np.arange(count), embeddings.reshape(shape), np.zeros((len(trainer.seeds), count, 0)))


def fill_record(
    blank: TrialRecord, place: int, inputs: TrialInputs, trainer: Trainer, training: Training, embedded: Embedded
) -> TrialRecord:
    """`blank` with all that training gave: `done`, `pruned` where it stopped before the last epoch, or `failed`.

    The weights of a finished trial are kept in its folder, unless the run says otherwise. An evaluation that raises
    makes this seed's record `failed`, with its curves.

    Args:
        place: which of the seeds trained together this is.
    """
    history, split = training.history, inputs.split
    record = dataclasses.replace(
        blank,
        epochs=len(history.loss),
        loss=[epoch[place] for epoch in history.loss],
        train_accuracy=[epoch[place] for epoch in history.train_accuracy],
        validation_accuracy=[epoch[place] for epoch in history.validation_accuracy],
        train_images_per_second=training.images_per_second,
        data_wait_fraction=training.data_wait_fraction,
        compile_seconds=round(training.compile_seconds, 3),
        device=describe_device(trainer.device_count),
    )
    if history.bad_steps[place]:
        error = f"the loss is not finite: {history.bad_steps[place]}; try a smaller recipe.learning_rate"
        return dataclasses.replace(record, status="failed", error=error)
    try:
        status = "pruned" if record.epochs < inputs.trial.recipe.epochs else "done"
        record = dataclasses.replace(
            record,
            **measure(inputs, embedded, place),
            test_images=split.asked.tolist(),
            status=status,
        )
        if inputs.run.keep_weights and status == "done":
            keep_weights(record, place, inputs, training)
    except Exception as error:
        log.info("%s seed %s could not be evaluated", record.arch, record.seed, exc_info=True)
        return dataclasses.replace(record, status="failed", error=describe_error(error))
    return record


def measure(inputs: TrialInputs, embedded: Embedded, place: int) -> dict[str, Any]:
    """The measured fields of one seed's record. Raises ValueError as `evaluate` does."""
    import numpy as np

    from ffem_jax.metrics.duplicates import find_duplicates
    from ffem_jax.training.evaluate import (
        compute_bins_metrics,
        compute_metrics,
        compute_open_set_metrics,
        compute_pair_metrics,
    )

    faces, split, protocol = inputs.faces, inputs.split, inputs.trial.protocol
    embeddings, logits, tests = embedded.embeddings[place], embedded.logits[place], len(split.test)
    if split.bins:
        return compute_bins_metrics(embeddings, split.bins.sets)
    if pairs := split.pairs:
        first, second = (embeddings[np.searchsorted(embedded.indices, side)] for side in (pairs.first, pairs.second))
        return compute_pair_metrics(first, second, pairs.same, pairs.fold, protocol)
    if split.probes is not None:
        return compute_open_set_metrics(embeddings, faces.labels[split.test])
    gallery_labels = faces.labels[split.train]
    duplicates = find_duplicates(gallery_labels, [faces.content[index] for index in split.train])
    return compute_metrics(
        logits[:tests],
        embeddings[:tests],
        faces.labels[split.test],
        embeddings[tests:],
        gallery_labels,
        protocol,
        duplicates.select(len(split.train)),
    )


def keep_weights(record: TrialRecord, place: int, inputs: TrialInputs, training: Training) -> None:
    """Write the weights of one seed, and which faces they were trained on, into the trial's folder."""
    import jax

    from ffem_jax.training.weights import save_weights

    params, statistics = jax.device_get(training.state.evaluated)
    if len(training.history.bad_steps) > 1:
        params, statistics = jax.tree.map(lambda leaf: leaf[place], (params, statistics))
    known = describe_faces(inputs.faces, inputs.split), KnownFaces(record.pretraining_fingerprint)
    save_weights(inputs.out_dir, record.trial_key, record.spec, params, statistics, known)


def describe_device(count: int) -> str:
    """What a trial on `count` devices trains on: an accelerator's name, or the CPU's with its cores."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        several = f"{count} x " if count > 1 else ""
        described = f"{several}{device.device_kind} ({device.platform})"
    else:
        described = f"{find_processor()} ({count // hosts.count()} of {os.cpu_count()} cores, cpu)"
    return described if hosts.count() == 1 else f"{described} by {hosts.count()} processes"
