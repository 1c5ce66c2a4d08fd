"""Chips by name: caps and grids of their delays, bits of their weights, and where these numbers stand."""

from __future__ import annotations

import dataclasses

from delaykit import checks
from delaykit.wrapping.discretizing import grid


@dataclasses.dataclass(frozen=True)
class Target:
    """What a chip, or the software that drives it, can hold.

    Args:
        name: of the target.
        max_delay: largest delay in steps, in our count: 0 is the bare connection.
        step: delays are multiples of this many steps, >= 1.
        delay_bits: bits of a stored delay; None: as many as ``max_delay`` needs.
        weight_bits: bits of a weight, its sign included; None: weights are left alone.
        source: where these numbers stand.
    """

    name: str
    max_delay: int
    step: int = 1
    delay_bits: int | None = None
    weight_bits: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        grid(self.step, self.max_delay, self.delay_bits)
        if self.weight_bits is not None:
            checks.whole("Target.weight_bits", self.weight_bits, least=2)


TARGETS = {
    target.name: target
    for target in (
        Target("loihi", 62, weight_bits=8, source="lava-dl: slayer/block/cuba.py has Delay(max_delay=62), and "
               "quantize_8bit of slayer/neuron/base.py weights 2 k / w_scale, k = -128 .. 127, 8 bits where signs are "
               "mixed; the chip: Davies et al. 2018, IEEE Micro 38(1), 82"),
        Target("spinnaker", 15, weight_bits=16, source="sPyNNaker, utilities/constants.py: MAX_SUPPORTED_DELAY_TICS = "
               "16, counted from 1, and SYNAPSE_WEIGHT_BITS = 16 of its synapse_row.h; the software: Rhodes et al. "
               "2018, Front. Neurosci. 12, 816"),
        Target("spinnaker-extended", 143, weight_bits=16, source="sPyNNaker, utilities/constants.py: 16 native ticks "
               "and MAX_DELAY_BLOCKS = 8 of 16 ticks, counted from 1; branches differ: look at yours"),
    )
}  # fmt: skip
