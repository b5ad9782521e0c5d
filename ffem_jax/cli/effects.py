"""`ffem effects RECORDS...`: what each choice of a search's space does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.predict import load_space
from ffem_jax.cli.recorded import add_records, find_records, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, say, show
from ffem_jax.specs.trial import PRECISIONS


def run(words: Sequence[str]) -> int:
    """Print what is shown, and write the page, the figure and the numbers."""
    parser = Parser("effects", "What each choice of a search's space does to accuracy, from the networks trained.")
    add_records(parser)
    parser.add_argument("--space", default="search", metavar="SWEEP", help="the sweep that states the space (search)")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with sweeps of your own")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="bytes at this precision (float32)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: effects/ beside the first records")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.runs.sweep import check_writable
    from ffem_jax.search.model.effects import compute_effects
    from ffem_jax.search.model.effects_page import plot_effects, tell_effects, write_effects
    from ffem_jax.text.display import write_text

    paths = find_records(options.records)
    out = options.out or paths[0].parent / "effects"
    check_writable(out, "--out DIR")
    effects = compute_effects(
        read_comparable(paths, options.faces),
        load_space(options.space, options.config_dir),
        precision=options.precision,
    )
    write_text(out / "effects.json", json.dumps(effects.to_dict(), indent=1) + "\n")
    write_text(out / "effects.md", write_effects(effects))
    plot_effects(effects, out / "effects")
    if options.json:
        print(json.dumps(effects.to_dict()))
    else:
        for line in tell_effects(effects):
            show(line)
        say(f"effects: {out}")
    return DONE
