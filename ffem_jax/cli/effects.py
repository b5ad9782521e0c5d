"""`ffem effects RECORDS...`: the effect of each choice in a search space."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.predict import add_space, load_space
from ffem_jax.cli.recorded import add_precision, add_records, find_records, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, open_output, print_table, say
from ffem_jax.text.tables import print_prose


def run(words: Sequence[str]) -> int:
    """Print the largest effects, and which are significant; with --out, write the page, the figure and the numbers."""
    parser = Parser("effects", "The effect of each choice in a search space on accuracy, from the trained networks.")
    add_records(parser)
    add_space(parser)
    add_precision(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the page, the figure and the numbers here")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.analysis.cap import choose_cap
    from ffem_jax.search.model.effects import compute_effects
    from ffem_jax.search.model.effects_page import make_effects_table, plot_effects, tell_effects, write_effects
    from ffem_jax.text.display import write_text

    records = read_comparable(find_records(options.records), options.faces)
    cap, _ = choose_cap(records, precision=options.precision)
    with open_output(options.out) if options.out else contextlib.nullcontext():
        effects = compute_effects(records, load_space(options.space, options.config_dir), precision=cap.precision)
        if options.out:
            write_text(options.out / "effects.json", json.dumps(effects.to_dict(), indent=1) + "\n")
            write_text(options.out / "effects.md", write_effects(effects))
            plot_effects(effects, options.out / "effects")
    if options.json:
        print(json.dumps(effects.to_dict()))
    else:
        print_table(make_effects_table(effects))
        for line in tell_effects(effects):
            print_prose(line)
    if options.out:
        say(f"effects: {options.out}")
    return DONE
