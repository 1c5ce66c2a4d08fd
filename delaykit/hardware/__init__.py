"""Budgets of hardware: caps and grids for delays and weights, and what a deployed network costs.

>>> TARGETS["loihi"].max_delay
62
"""

from delaykit.hardware.fitting import FitReport, SiteFit, fit_hardware_
from delaykit.hardware.targets import TARGETS, Target

__all__ = ["TARGETS", "FitReport", "SiteFit", "Target", "fit_hardware_"]
