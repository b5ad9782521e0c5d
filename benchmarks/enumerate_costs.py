"""How long it takes to cost a search space: distinct random networks, each one's parameters, MACs, bytes and peak.

    python benchmarks/enumerate_costs.py [--specs 1000] [--seed 0]

The first pass is cold: each distinct part (stem, bottleneck, head) is traced once. The second finds them all
remembered. Importing JAX is not timed.
"""

from __future__ import annotations

import argparse
import random
import time

from ffem_jax.cost.cost import Cost, _trace_part, compute_cost
from ffem_jax.specs.architecture import (
    FFEM_STAGES,
    PLACEMENTS,
    POOLINGS,
    ArchSpec,
    AttentionSpec,
    NetworkSpec,
    StageSpec,
    resolve_network,
)

CAP_BYTES = 10_000_000


def draw_network(source: random.Random) -> tuple[NetworkSpec, int]:
    """A network and a resolution, each choice even: FFEM's channels and strides, the rest free."""
    stages = tuple(
        StageSpec(1 if index == 0 else source.choice((3, 4, 6)), row.channels, source.randint(1, 4), row.stride)
        for index, row in enumerate(FFEM_STAGES)
    )
    arch = ArchSpec(
        stages=stages,
        stem_stride=source.choice((1, 2)),
        width_multiplier=source.choice((0.5, 0.75, 1.0)),
        head_channels=source.choice((0, 1280)),
        pooling=source.choice(POOLINGS),
        embedding_dim=source.choice((64, 128, 256)),
        attention=AttentionSpec(kind=source.choice(("none", "eca", "se")), placement=source.choice(PLACEMENTS)),
    )
    return resolve_network(arch), source.choice((64, 96, 112))


def draw_networks(count: int, seed: int) -> list[tuple[NetworkSpec, int]]:
    """`count` distinct pairs of network and resolution."""
    source = random.Random(seed)
    drawn: dict[tuple[NetworkSpec, int], None] = {}
    while len(drawn) < count:
        drawn[draw_network(source)] = None
    return list(drawn)


def time_costs(networks: list[tuple[NetworkSpec, int]]) -> tuple[float, list[Cost]]:
    """Seconds for one pass over `networks`, and their costs."""
    start = time.perf_counter()
    costs = [compute_cost(network, resolution) for network, resolution in networks]
    return time.perf_counter() - start, costs


def main() -> None:
    """Draw the networks, cost them twice and print what it took."""
    parser = argparse.ArgumentParser(description="Time the cost model on distinct random networks.")
    parser.add_argument("--specs", type=int, default=1000, help="how many networks (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="what draws them (default: 0)")
    options = parser.parse_args()
    if options.specs < 1:
        parser.error(f"--specs {options.specs} is too few; give at least 1")

    networks = draw_networks(options.specs, options.seed)
    cold_seconds, costs = time_costs(networks)
    warm_seconds, again = time_costs(networks)
    if costs != again:
        raise SystemExit("the second pass gave other costs than the first")

    parts = sum(len(network.blocks) + 2 for network, _ in networks)
    params = sorted(cost.params for cost in costs)
    print(f"networks               {len(networks)}, of {params[0]:,} to {params[-1]:,} parameters")
    print(f"first pass             {cold_seconds:.2f} s")
    print(f"second pass            {warm_seconds:.3f} s")
    print(f"distinct parts traced  {_trace_part.cache_info().misses} of {parts}")
    for precision in ("float32", "float16", "int8"):
        fitting = sum(cost.get_bytes(precision) <= CAP_BYTES for cost in costs)
        print(f"fit 10 MB in {precision:<9} {fitting}")


if __name__ == "__main__":
    main()
