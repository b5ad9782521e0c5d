"""Images per second of a full training step (forward, loss, backward, optimiser), ours against other libraries.

    python -m benchmarks.train_step [--networks ffem_am ...] [--resolutions 48 ...] [--batches 32 128] [--report-only]

From the repository root, with `pip install -e ".[bench]"`. Every contestant trains the same network on the same random
faces, held in memory as bytes. A step gathers a shuffled batch, normalises it to -1 to 1 and applies SGD.
"""

from functools import partial

from benchmarks.contest import run
from benchmarks.contests import CONTESTS
from ffem_jax.kernels.huge_pages import use_huge_pages

main = partial(run, CONTESTS["train_step"])

if __name__ == "__main__":
    use_huge_pages()  # for both sides: their processes inherit the setting that `ffem` requests for itself
    main()
