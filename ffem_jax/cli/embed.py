"""`ffem embed FOLDER --trial DIR|--export DIR`: photographs to vectors, into a file, a gallery or a calibration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say

if TYPE_CHECKING:
    from ffem_jax.embed import EmbeddedFaces
    from ffem_jax.metrics.calibration import Calibration


def run(words: Sequence[str]) -> int:
    """Embed a folder of people and write what was asked for."""
    options = _parse(words)

    from ffem_jax.embed import (
        ENDINGS,
        calibrate,
        check_same_trial,
        embed_folder,
        load_exported,
        make_embedder,
        write_vectors,
    )
    from ffem_jax.weights import load_trial

    if options.out and options.out.suffix not in ENDINGS:
        raise UsageError(f"--out {options.out}: the file ends in {' or '.join(ENDINGS)}")
    if options.gallery:
        from ffem_jax.cli.server_options import check_installed

        check_installed()
    finished = load_trial(options.trial, options.seed) if options.trial else None
    if options.export:
        embedder = load_exported(options.export)
        if finished:
            check_same_trial(options.export, finished)
    else:
        assert finished is not None
        embedder = make_embedder(finished)
    crop = embedder.crop
    if options.crop == 1 and crop != 1:
        say(f"ffem: the pictures are read whole, as faces already cut; the trial cut its own with --crop {crop:g}")
    cache_dir = finished.trial.data.cache_dir if finished else ""
    embedded = embed_folder(options.folder, embedder, options.crop, cache_dir)
    for note in embedded.faces.notes:
        say(f"ffem: warning: {note}")
    images, length = embedded.vectors.shape
    summary: dict[str, Any] = {"model_id": embedded.model_id, "images": images, "length": length}
    summary |= {"people": len(embedded.faces.people), "out": None, "imported": None, "calibration": None}
    # First what may be refused.
    if options.calibrate:
        assert finished is not None
        calibration, notes = calibrate(embedded, finished.trial)
        for note in notes:
            say(f"ffem: warning: {note}")
        options.calibrate.write_text(json.dumps(calibration.to_dict()) + "\n", encoding="utf-8")
        summary["calibration"] = {**calibration.to_dict(), "curve": None, "file": str(options.calibrate)}
    if options.out:
        write_vectors(options.out, embedded)
        summary["out"] = str(options.out)
    if options.gallery:
        summary["imported"] = import_vectors(options.gallery, embedded)
    if options.json:
        print(json.dumps(summary))
        return DONE
    print(f"{images} pictures of {summary['people']} people, {length} numbers each, by model {embedded.model_id}")
    if options.out:
        print(f"vectors: {options.out}")
    if options.gallery:
        print(f"imported: {summary['imported']} vectors that were not there yet")
    if options.calibrate:
        print_table(make_table(calibration))
        print(f"calibration: {options.calibrate}")
    return DONE


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("embed", "Photographs of people, FOLDER/person/*.jpg, to vectors of a trained network.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="one folder a person, pictures cut to the face")
    parser.add_argument("--trial", type=Path, metavar="DIR", help="the folder of a finished trial")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="what ffem export wrote: its file is run as it is, which a fine-tuned model needs",
    )
    parser.add_argument("--seed", type=int, help="of several that were trained at once")
    parser.add_argument(
        "--crop", type=float, default=1.0, help="keep this share of each picture, centred (default: all of it)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="vectors.npz or vectors.jsonl")
    parser.add_argument(
        "--import",
        dest="gallery",
        metavar="URL",
        help="enrol them, each under its folder's name, as sqlite:///gallery.db",
    )
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE",
        help="write thresholds by false-accept rate; the people must be new to the network",
    )  # fmt: skip
    options = parser.parse_args(words)
    if not (options.out or options.gallery or options.calibrate):
        raise UsageError("what becomes of the vectors? give --out FILE, --import URL or --calibrate FILE, or several")
    if not (options.trial or options.export):
        raise UsageError("which network? give --trial DIR or, to run an exported file, --export DIR")
    if options.calibrate and not options.trial:
        raise UsageError("--calibrate needs --trial DIR too: the trial tells which people trained the network")
    if not 0.05 <= options.crop <= 1:
        raise UsageError(f"--crop {options.crop:g} must be between 0.05 and 1")
    return options


def import_vectors(url: str, embedded: EmbeddedFaces) -> int:
    """Enrol all vectors in the gallery at `url`, in one transaction; how many were new."""
    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.gallery import Gallery

    gallery = Gallery(open_database(url), embedded.model_id, embedded.vectors.shape[1])
    labels = embedded.faces.labels
    batch = [(name, embedded.vectors[labels == label]) for label, name in enumerate(embedded.faces.people)]
    return sum(done.added for done in gallery.enrol_all(batch))


def make_table(calibration: Calibration) -> Any:
    """The calibration as a rich table."""
    from rich.table import Table

    table = Table(
        title=f"{calibration.pairs:,} pairs of {calibration.people} people, worth "
        f"{calibration.pairs / calibration.design_effect:,.0f} independent ones",
        title_justify="left",
    )
    table.add_column("false-accept rate a comparison", justify="right")
    table.add_column("threshold", justify="right")
    table.add_column("pairs accepted", justify="right")
    table.add_column("95 % interval of the rate", justify="right")
    table.add_column("")
    for row in calibration.told:
        interval = f"{row.low:.2g} to {row.high:.2g}"
        remark = "" if row.enough else "too few pairs to show it"
        table.add_row(f"{row.false_accept_rate:g}", f"{row.threshold:.4f}", f"{row.accepted:,}", interval, remark)
    return table
