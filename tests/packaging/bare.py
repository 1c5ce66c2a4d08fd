"""The command line as in a bare install: packages that the core does not require are out of sight.

Usage: python tests/packaging/bare.py WORDS...
"""

import importlib.metadata
import sys
from importlib.machinery import PathFinder

HIDDEN = ("click", "rich", "tqdm", "matplotlib", "snntorch", "norse", "numba", "nir", "nirtorch", "torchvision")


class Bare(PathFinder):
    """Find what is installed, but for the hidden packages."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in HIDDEN else super().find_spec(fullname, path, target)


def hide() -> None:
    """Hide them; only in a process of their own, since pytest imports this file, too."""
    sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
    whole = importlib.metadata.entry_points
    importlib.metadata.entry_points = lambda **asked: [] if asked.get("group") == "delaykit" else whole(**asked)


if __name__ == "__main__":
    hide()
    from delaykit.__main__ import main

    main(sys.argv[1:])
