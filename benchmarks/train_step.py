"""Images per second of a full training step (forward, loss, backward, optimiser), ours against other libraries.

    python -m benchmarks.train_step [--networks ffem_am ...] [--resolutions 48 ...] [--batches 32 128] [--report-only]

From the repository root, with `pip install -e ".[bench]"`. Every contestant trains the same network on the same random
faces, which lie in memory as bytes: a shuffled batch is gathered, normalised to -1 to 1 and stepped on with SGD.
"""

from functools import partial

from benchmarks.contest import run
from benchmarks.contests import CONTESTS
from ffem_jax.kernels.huge_pages import use_huge_pages

main = partial(run, CONTESTS["train_step"])

if __name__ == "__main__":
    use_huge_pages()  # both sides: their processes inherit what `ffem` asks for itself
    main()
