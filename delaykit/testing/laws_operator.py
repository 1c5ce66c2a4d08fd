"""Laws of the operator that runs a component: it is the causal filter that its impulse response says."""

from __future__ import annotations

import torch

from delaykit.testing.kit import (
    GRADIENT_TOLERANCE,
    TIME,
    VALUE_TOLERANCE,
    Kit,
    LoneOperator,
    assert_equal,
    gradients,
    law,
)
from delaykit.testing.laws_config import PARTS


class OperatorLaws(Kit):
    """Sequence and step operator against the dense convolution, in float64."""

    @law(*PARTS)
    def test_sequence_equals_reference(self) -> None:
        """The sequence operator and all its gradients equal the convolution with ``impulse_response``."""
        for stir in (False, True):
            operator = LoneOperator(self.config, stir)
            spikes = operator.spikes()
            found, wanted = operator.sequence(spikes), operator.judge(spikes)
            assert_equal([found], [wanted], VALUE_TOLERANCE, "sequence operator")
            leaves = operator.leaves(spikes)
            one, two = (gradients(operator.loss(current), leaves) for current in (found, wanted))
            assert_equal(one, two, GRADIENT_TOLERANCE, "gradient of the sequence operator")

    @law(*PARTS)
    def test_step_equals_sequence(self) -> None:
        """Stepping through a sequence gives the currents and gradients of the whole-sequence operator."""
        operator = LoneOperator(self.config)
        spikes = operator.spikes()
        found, wanted = operator.steps(spikes), operator.sequence(spikes)
        assert_equal([found], [wanted], VALUE_TOLERANCE, "step operator")
        leaves = operator.leaves(spikes)
        one, two = (gradients(operator.loss(current), leaves) for current in (found, wanted))
        assert_equal(one, two, GRADIENT_TOLERANCE, "gradient of the step operator")

    @law(*PARTS)
    def test_causality(self) -> None:
        """What comes later changes nothing before, and its gradient reaches no later input."""
        operator = LoneOperator(self.config)
        spikes, now = operator.spikes(), TIME // 2
        other = spikes.detach().clone()
        other[now:] += 1.0
        for run in (operator.sequence, operator.steps):
            current = run(spikes)
            assert_equal([run(other)[:now]], [current[:now]], 1e-12, "currents before a change of input")
            (late,) = gradients(operator.loss(current[:now]), [spikes])
            assert_equal([late[now:]], [torch.zeros_like(late[now:])], 0.0, "gradient of inputs still to come")

    @law(*PARTS)
    def test_batch_rows_are_independent(self) -> None:
        """A row of a batch gives what it gives alone."""
        operator = LoneOperator(self.config)
        spikes = operator.spikes()
        for run in (operator.sequence, operator.steps):
            whole = run(spikes)
            alone = torch.cat([run(spikes[:, row : row + 1]) for row in range(spikes.shape[1])], 1)
            assert_equal([alone], [whole], 1e-12, "rows run alone")

    @law(*PARTS)
    def test_gradcheck(self) -> None:
        """Finite differences confirm every gradient away from kinks, in float64."""
        operator = LoneOperator(self.config)
        spikes = operator.spikes(time=9, batch=2)
        torch.autograd.gradcheck(lambda *_: operator.sequence(spikes), operator.leaves(spikes))
