"""`ffem embed FOLDER --trial DIR|--export DIR`: turns photographs into vectors: a file, a gallery, a calibration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.terminal import BAD_USAGE, DONE, Parser, UsageError, print_table, say, show
from ffem_jax.cli.trials import add_network_options, choose_folder
from ffem_jax.text.tables import Column, Table, make_table

if TYPE_CHECKING:
    from ffem_jax.metrics.calibration import Calibration


def run(words: Sequence[str]) -> int:
    """Embed a folder of people and write the requested outputs."""
    options = _parse(words)

    from ffem_jax.embed import (
        ENDINGS,
        calibrate,
        check_names,
        check_same_trial,
        embed_folder,
        move_faces,
        write_vectors,
    )
    from ffem_jax.export.embedder import load_exported, make_embedder
    from ffem_jax.training.weights import load_trial

    if options.out and options.out.suffix not in ENDINGS:
        raise UsageError(f"--out {options.out}: the file ends in {' or '.join(ENDINGS)}")
    if options.gallery:
        from ffem_jax.cli.server_options import check_installed

        check_installed()
        check_names(options.folder)
    finished = load_trial(*_choose_trial(options)) if options.trial else None
    if options.export:
        embedder = load_exported(options.export)
        if finished:
            check_same_trial(options.export, finished)
    else:
        assert finished is not None
        embedder = make_embedder(finished)
    crop = embedder.crop
    if options.crop == 1 and crop != 1:
        say(
            "ffem: the images are read uncropped, as faces already cropped; the trial cropped its own, so for images "
            f"like those add --crop {crop:g}"
        )
    cache_dir = finished.trial.data.cache_dir if finished else ""
    embedded = embed_folder(options.folder, embedder, options.crop, cache_dir)
    for note in embedded.faces.notes:
        say(f"ffem: warning: {note}")
    status = DONE
    images, length = embedded.vectors.shape
    summary: dict[str, Any] = {"model_id": embedded.model_id, "images": images, "length": length}
    summary |= {"people": len(embedded.faces.people), "out": None, "imported": None, "calibration": None}
    # Whatever may be refused comes first.
    if options.calibrate:
        assert finished is not None
        calibration, notes = calibrate(embedded, move_faces(finished, options.data_root))
        for note in notes:
            say(f"ffem: warning: {note}")
        options.calibrate.write_text(json.dumps(calibration.to_dict()) + "\n", encoding="utf-8")
        summary["calibration"] = {**calibration.to_dict(), "curve": None, "file": str(options.calibrate)}
    if options.out:
        write_vectors(options.out, embedded)
        summary["out"] = str(options.out)
    if options.gallery:
        from ffem_jax.cli.embed_import import import_embedded, print_report, warn

        report = import_embedded(options, embedded)
        warn(report)
        status = BAD_USAGE if report.refused else DONE
        summary |= {"imported": len(report.added), "changes": report.to_dict()}
    if options.json:
        print(json.dumps(summary))
        return status
    show(f"{images} images of {summary['people']} people, {length} numbers each, by model {embedded.model_id}")
    if options.out:
        show(f"vectors: {options.out}", whole=True)
    if options.gallery:
        print_report(report, options.sync or options.sync_all)
    if options.calibrate:
        print_table(make_calibration_table(calibration))
        show(f"calibration: {options.calibrate}", whole=True)
    return status


def _choose_trial(options: argparse.Namespace) -> tuple[Path, int | None]:
    return choose_folder(options.trial, options.network, options.best, options.seed)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("embed", "Turn photographs of people, FOLDER/person/*.jpg, into vectors of a trained network.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="one folder per person, images cropped to the face")
    parser.add_argument("--trial", type=Path, metavar="DIR", help="the folder of a finished trial, or of records")
    add_network_options(parser)
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="the output of ffem export: its file itself is run, as a fine-tuned model requires",
    )
    parser.add_argument("--seed", type=int, help="the seed, if several were trained at once")
    parser.add_argument(
        "--crop", type=float, default=1.0, help="keep this share of each image, centred (default: all of it)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="vectors.npz or vectors.jsonl")
    parser.add_argument(
        "--import",
        dest="gallery",
        metavar="URL",
        help="enrol them, each under its folder's name, as sqlite:///gallery.db",
    )
    parser.add_argument(
        "--sync",
        action="store_true",
        help="also delete, and list, what an earlier --import of this folder enrolled and is no longer in it",
    )
    parser.add_argument(
        "--sync-all",
        action="store_true",
        help="delete every vector of this model that is not in the folder, regardless of who enrolled it",
    )
    parser.add_argument(
        "--moved-from",
        type=Path,
        metavar="DIR",
        help="FOLDER's earlier location, whose imports count as FOLDER's",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what --import would change, and change nothing")
    parser.add_argument(
        "--force",
        action="store_true",
        help="sync even if most people would be deleted, or people with unreadable images",
    )
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE",
        help="write thresholds by false-accept rate; the people must be new to the network",
    )  # fmt: skip
    parser.add_argument(
        "--data-root", default="", metavar="DIR",
        help="current location of the training faces, for --calibrate; default: the recorded one",
    )  # fmt: skip
    options = parser.parse_args(words)
    options.folder = options.folder.expanduser()
    if not (options.out or options.gallery or options.calibrate):
        raise UsageError("no use for the vectors was given; add --out FILE, --import URL or --calibrate FILE")
    for name in ("sync", "sync_all", "dry_run", "moved_from"):
        if getattr(options, name) and not options.gallery:
            raise UsageError(f"--{name.replace('_', '-')} needs a gallery: give --import URL")
    if options.data_root and not options.calibrate:
        raise UsageError("--data-root needs --calibrate FILE, which checks the training faces; give both")
    if options.force and not (options.sync or options.sync_all):
        raise UsageError("--force needs --sync or --sync-all; give one of them")
    if not (options.trial or options.export):
        raise UsageError("which network? give --trial DIR or, to run an exported file, --export DIR")
    if (options.network or options.best) and not options.trial:
        raise UsageError("--network and --best choose among the trials in a folder: give --trial DIR")
    if options.calibrate and not options.trial:
        raise UsageError("--calibrate needs --trial DIR too: the trial records which people trained the network")
    if not 0.05 <= options.crop <= 1:
        raise UsageError(f"--crop {options.crop:g} must be between 0.05 and 1")
    return options


def make_calibration_table(calibration: Calibration) -> Table:
    """Return the calibration as a table with one row per rate."""
    heads = ("false-accept rate per comparison", "threshold", "pairs accepted", "95 % interval of the rate")
    rows = [
        [
            f"{row.false_accept_rate:g}",
            f"{row.threshold:.4f}",
            f"{row.accepted:,}",
            f"{row.low:.2g} to {row.high:.2g}",
            "" if row.enough else "too few pairs to show it",
        ]
        for row in calibration.told
    ]
    worth = calibration.pairs / calibration.design_effect
    title = f"{calibration.pairs:,} pairs of {calibration.people} people, equivalent to {worth:,.0f} independent ones"
    return make_table([*(Column(head, right=True) for head in heads), ""], rows, title=title)
