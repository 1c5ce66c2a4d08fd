"""Where SpikingJelly is not installed, as on Python 3.10, nothing of this plugin is collected."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("spikingjelly") else ["*"]
