"""The nets of this folder can be imported by its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = ["brian2_run.py", "sc_neurocore_run.py"]  # run in processes of their own, with packages of their own
