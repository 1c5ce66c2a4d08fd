"""Exact gradients of event times: the rule, and the tape that follows it step by step."""

from delaykit.functional.event_gradients.rule import (
    Continued,
    Emission,
    NeuronConstants,
    rescale_gradient,
    warn_of_explosion,
    whole_taps,
)

__all__ = ["Continued", "Emission", "NeuronConstants", "rescale_gradient", "warn_of_explosion", "whole_taps"]

Timing = NeuronConstants  # its earlier name; the word now means when the sequences of a connection begin
