"""What hangs beside the synapse of one wrapped connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from delaykit.attaching.clocks import ManualClock, Timing, clock_of
from delaykit.attaching.history.beats import Beat
from delaykit.attaching.history.beginnings import Ends
from delaykit.attaching.history.connection_history import History
from delaykit.attaching.scope import RootScope
from delaykit.attaching.watches import NeuronWatch
from delaykit.synapse import Product

ProductOf = Callable[[Any, Callable[[Tensor], Tensor]], Product]


class Attachment:
    """Timing and history of one connection, and the root and neuron it listens to.

    Args:
        where: site name, for messages.
        timing: how the site lives in time.
        scope: the wrapped root.
        watch: the neuron it follows (policy ``follow``) or belongs to (a neuron's own recurrent connection).
        owned: True for a neuron's own recurrent connection, which its neuron may call twice a step.
        product: ``product(module, forward)`` describes the module's linear map; None for what every ``nn.Linear``,
            convolution and element-wise connection is.

    Attributes:
        parameter: name of the weight in the module that holds it.
        off: True inside ``dk.disabled``.
        seen: what the last input was, after its checks: another of its kind needs none.
    """

    def __init__(
        self,
        where: str,
        timing: Timing,
        scope: RootScope,
        watch: NeuronWatch | None = None,
        owned: bool = False,
        product: ProductOf | None = None,
    ) -> None:
        self.where, self.timing, self.scope, self.watch, self.owned = where, timing, scope, watch, owned
        self.product, self.parameter = product, "weight"
        self.clock = clock_of(timing.policy, where, scope, watch, owned)
        self.history = History(where)
        self.history.asked, self.history.rows = timing.asked, timing.rows
        self.history.leader = watch if timing.policy in ("root", "follow") else None
        if timing.time_dim is not None and timing.policy == "manual" and not timing.asked:
            self.history.ends = Ends()
        self.off = False
        self.seen: tuple[Any, ...] | None = None
        if timing.policy == "root":
            scope.histories.append(self.history)
        if watch is not None and timing.policy != "root" and (owned or timing.policy == "follow"):
            watch.truncated.append(self.history)
        if watch is not None and owned:
            watch.owned.append(self.history)
        elif watch is not None and timing.policy == "follow":
            watch.followers.append(self.history)

    def go_on_without(self, by: str) -> None:
        """Begin in the middle of a sequence, without what is under way in it: it is refused if it goes on."""
        history = self.history
        history.gap = None if isinstance(self.clock, ManualClock) else 0, by
        history.lost = self.timing.policy == "root" and not self.timing.asked
        if history.ends is not None:
            history.ends.miss()

    def lead_to(self, watch: NeuronWatch, path: str, each: int) -> None:
        """Count the calls of this connection against the steps of a neuron behind it, ``each`` (or 0) a call."""
        if each:
            self.history.beats.append(Beat(watch, path, each))
        watch.inputs.append(self.history)
        self.history.neurons.append(watch)
        watch.path = path
        watch.expect(each)  # and nothing else: another connection may be in the middle of a sequence
        self.scope.watch([watch])
