"""The adapter that the how-to page writes keeps every law."""

from __future__ import annotations

import pulse

TestPulse = pulse.load().TestPulse
