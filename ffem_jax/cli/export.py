"""`ffem export TRIAL_DIR --format F --dtype T --out DIR`: writes a trained network for a phone or a browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffem_jax.cli.recorded import add_cap_mb
from ffem_jax.cli.terminal import DONE, Parser, keep_stdout_clean, open_output, say, show
from ffem_jax.cli.trials import add_network_options, choose_folder, find_trial_records
from ffem_jax.errors import describe_install
from ffem_jax.export import DTYPES, FORMATS

EPILOG = (
    "The files are then run on the trial's held-out faces, by ONNX Runtime and LiteRT "
    f"({describe_install('export')}), and by TensorFlow.js in Node if both are installed."
)


def run(words: Sequence[str]) -> int:
    """Write the files and export.json, and print how closely they match the trained network."""
    parser = Parser("export", "Write a trained network as files that phones and browsers run.", EPILOG)
    parser.add_argument("trial", type=Path, metavar="TRIAL_DIR", help="the folder of a finished trial, or of records")
    add_network_options(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="the target runtime")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="storage type of the weights (float32)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--finetune-epochs",
        type=int,
        default=0,
        metavar="N",
        help="first train the network for N more epochs, so that its weights tolerate rounding to uint8 or int8 (0)",
    )
    parser.add_argument("--seed", type=int, help="the seed, if the folder holds several")
    parser.add_argument(
        "--data-root",
        default="",
        metavar="DIR",
        help="where the trial's faces are now; default: as recorded",
    )
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN[:CUTS]",
        help="the attribute that groups the strangers in the model card, such as gender, or "
        "eyeglasses_probability:0.1,0.5 (numbers, binned); may be repeated; default: all with named values",
    )  # fmt: skip
    add_cap_mb(parser)
    options = parser.parse_args(words)

    from ffem_jax.analysis.cap import choose_cap
    from ffem_jax.data.cache import find_cache_folder
    from ffem_jax.export.bundle import export_trial
    from ffem_jax.runs.trial import enable_compilation_cache
    from ffem_jax.specs.trial import DataSpec

    folder, seed = choose_folder(options.trial, options.network, options.best, options.seed)
    enable_compilation_cache(find_cache_folder(DataSpec()) / "compiled")
    cap, _ = choose_cap(find_trial_records(folder), options.cap_mb)
    with open_output(options.out), keep_stdout_clean():
        manifest = export_trial(
            folder,
            options.format,
            options.dtype,
            options.out,
            cap.megabytes,
            seed,
            options.finetune_epochs,
            lambda epoch, loss: say(f"fine-tuning: epoch {epoch} of {options.finetune_epochs}, loss {loss:.2g}"),
            options.data_root,
            options.by,
        )
    if options.by and not manifest.get("strangers", {}).get("groups"):
        say("warning: --by: the card has no groups: a group needs a dozen strangers or more with that attribute")
    if options.json:
        print(json.dumps(manifest))
        return DONE
    for line in describe(manifest):
        show(line)
    show(f"folder: {options.out}", whole=True)
    if not manifest["parity"]["ran"]:
        say(f"not run: {manifest['parity']['reason']}")
    return DONE


def describe(manifest: dict[str, Any]) -> list[str]:
    """Summarise an export in a few lines: size, difference, accuracy."""
    fits = "fits" if manifest["fits_cap"] else "is over"
    lines = [
        f"{manifest['network']} (model {manifest['model_id']}) as {manifest['format']} {manifest['dtype']}: "
        f"{manifest['bytes']:,} bytes, {fits} the cap of {manifest['cap_bytes'] / 1e6:g} MB"
    ]
    parity, accuracy = manifest["parity"], manifest["accuracy"]
    if parity["ran"]:
        lines.append(
            f"{parity['runtime']} on {parity['processor']}, {parity['images']} held-out images: largest difference "
            f"{parity['max_difference']:.2g} (of numbers up to {parity['largest']:.2g}), cosine "
            f"{parity['cosine_mean']:.6f} on average and at least {parity['cosine_lowest']:.6f}"
        )
    if accuracy:
        drawn = " (synthetic faces)" if manifest.get("synthetic") else ""
        lines.append(
            f"accuracy{drawn}: {_describe_change(accuracy)} by {accuracy['measure']}, "
            f"{accuracy['answers_changed']} of {accuracy['images']} answers changed"
        )
        if "gallery" in accuracy:
            lines.append(f"by the nearest enrolled face: {_describe_change(accuracy['gallery'])}")
        if manifest["output"]["average_with_mirror"]:
            lines.append("each face is embedded once here; the trial's record averages it with its mirror image")
    return lines


def _describe_change(accuracy: dict[str, Any]) -> str:
    """Return the accuracies of the network and of the file."""
    return f"{100 * accuracy['reference']:.2f} % -> {100 * accuracy['exported']:.2f} %"
