"""`ffem cost [key=value ...]`: the cost of a network, before any training."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ffem_jax.cli.terminal import DONE, OverridesParser, print_table
from ffem_jax.specs.trial import RunSpec, TrialSpec
from ffem_jax.text.tables import Column, make_table, print_prose


def run(words: Sequence[str]) -> int:
    """Print parameters, MACs, bytes and peak activation."""
    parser = OverridesParser("cost", "Parameters, MACs, bytes and peak activation of a network; trains nothing.")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.config.compose import open_composer, to_specs

    with open_composer(options.config_dir) as composer:
        composer.parse(options.overrides)
        trial, run_spec = to_specs(composer.compose(options.overrides))

    from ffem_jax.cost.cost import compute_cost

    values = compute_cost(trial.arch, trial.data.resolution).to_dict()
    if options.json:
        print(json.dumps({"arch": trial.arch.name, "resolution": trial.data.resolution, **values}))
    else:
        rows = [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in values.items()]
        print_table(make_table(["what", Column("how much", right=True)], rows))
        print_prose(describe_fit(trial, run_spec, values[f"bytes_{run_spec.cap_precision}"]))
    return DONE


def describe_fit(trial: TrialSpec, run_spec: RunSpec, size: int) -> str:
    """Return one line that says whether `size` in bytes is within the cap."""
    fits = "fits" if size <= run_spec.cap_mb * 1e6 else "is over"
    return (
        f"{trial.arch.name} at {trial.data.resolution} pixels: {size / 1e6:.2f} MB in {run_spec.cap_precision} "
        f"{fits} the cap of {run_spec.cap_mb:g} MB"
    )
