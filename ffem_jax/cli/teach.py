"""`ffem teach FOLDER teacher=... --out FILE`: stores a teacher's vectors for the images of a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import choose_out
from ffem_jax.cli.terminal import DONE, OverridesParser, UsageError, say, show


def run(words: Sequence[str]) -> int:
    """Write a teacher's vectors for the images in a folder."""
    parser = OverridesParser(
        "teach",
        "Store a teacher's vectors for all images in a folder, DIR/person/*.jpg, in a file for teacher=vectors. Run it "
        "once, on a machine that can run the teacher.",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: teacher.npz, if new")
    options = parser.parse_intermixed_args(words)
    folder, overrides = _split_words(options)

    from ffem_jax.config.compose import check_writable, open_composer, to_specs
    from ffem_jax.config.overrides import quote_value
    from ffem_jax.data.folder import load_people
    from ffem_jax.teachers.teach import ask_teacher
    from ffem_jax.teachers.vectors import write_vectors

    out = choose_out(options.out, Path("teacher.npz"), "--out FILE")
    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: the name must end in .npz")
    check_writable(out.absolute().parent, "--out FILE")
    overrides = ["recipe=distill", "data=folder", "data.min_images=1", f"data.root={quote_value(folder)}", *overrides]
    with open_composer(options.config_dir) as composer:
        composer.parse(overrides)
        trial, _ = to_specs(composer.compose(overrides))
    faces = load_people(trial.data)
    for note in faces.notes:
        say(f"ffem: warning: {note}")
    vectors, about = ask_teacher(trial.teacher, trial.data, faces, load_people)
    write_vectors(out, faces.names, vectors, about, faces.content)
    summary = {"file": str(out), "images": len(vectors), "length": vectors.shape[1], "teacher": about}
    if options.json:
        print(json.dumps(summary))
    else:
        show(f"{out}: {len(vectors):,} vectors of {vectors.shape[1]} numbers, by {about['name']}")
    return DONE


def _split_words(options: argparse.Namespace) -> tuple[str, list[str]]:
    """The folder, and the overrides."""
    folders = [word for word in options.overrides if "=" not in word]
    if len(folders) != 1:
        raise UsageError("give one folder of people, as in ffem teach faces teacher=onnx teacher.path=big.onnx")
    return folders[0], [word for word in options.overrides if "=" in word]
