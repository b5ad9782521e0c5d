"""Milliseconds per call of the deployed network (bytes in, embeddings out), ours against other libraries.

    python -m benchmarks.inference [--networks ffem_am ...] [--resolutions 48 ...] [--batches 1 32] [--report-only]

From the repository root, with `pip install -e ".[bench]"`. All contestants hold the same weights and must return the
same embeddings before they are timed.
"""

from functools import partial

from benchmarks.contest import run
from benchmarks.contests import CONTESTS
from ffem_jax.kernels.huge_pages import use_huge_pages

main = partial(run, CONTESTS["inference"])

if __name__ == "__main__":
    use_huge_pages()  # for both sides: their processes inherit the setting that `ffem` requests for itself
    main()
