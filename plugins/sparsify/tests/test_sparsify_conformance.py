"""The laws every pruning owes, for each way of regrowth."""

from __future__ import annotations

from delaykit.testing import ComponentConformance
from delaykit_sparsify import DynamicSparsity

NEEDS_GRADIENTS = {"pruning_is_deterministic": "its later steps need the gradients of a training; see the unit tests"}


class TestDynamicSparsity(ComponentConformance):
    config = DynamicSparsity(0.7)


class TestCubicGlobalReset(ComponentConformance):
    config = DynamicSparsity(0.5, scope="global", schedule="cubic")


class TestNoRegrowth(ComponentConformance):
    config = DynamicSparsity(0.5, schedule="linear", regrow="none")


class TestRandomRegrowth(ComponentConformance):
    config = DynamicSparsity(0.6, regrow="random")


class TestGradientRegrowth(ComponentConformance):
    config = DynamicSparsity(0.6, regrow="gradient")
    skip = NEEDS_GRADIENTS
