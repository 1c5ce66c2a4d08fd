"""Let the tests of this folder import ``rigs`` and the fuzzer; keep each test's neurons to itself."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "fuzz"), str(HERE / "training")]  # pytest's importlib mode adds no folders
