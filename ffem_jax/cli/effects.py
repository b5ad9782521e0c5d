"""`ffem effects RECORDS...`: what each choice of a search's space does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.predict import add_space, load_space
from ffem_jax.cli.recorded import add_records, find_records, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, open_output, say, show


def run(words: Sequence[str]) -> int:
    """Print what is shown, and write the page, the figure and the numbers."""
    parser = Parser("effects", "What each choice of a search's space does to accuracy, from the networks trained.")
    add_records(parser)
    add_space(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: effects/ beside the first records")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.search.model.effects import compute_effects
    from ffem_jax.search.model.effects_page import plot_effects, tell_effects, write_effects
    from ffem_jax.text.display import write_text

    paths = find_records(options.records)
    out = options.out or paths[0].parent / "effects"
    with open_output(out):
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
