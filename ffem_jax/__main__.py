"""`python -m ffem_jax` runs `ffem`."""

import sys

from ffem_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
