"""Exact gradients of event times: the rule, and the tape that follows it step by step."""

from delaykit.functional.event_gradients.rule import Continued, Emission, Timing, rescale_gradient

__all__ = ["Continued", "Emission", "Timing", "rescale_gradient"]
