"""The rows of a comparison: what each name means for a network whose delays may be as long as ``max_delay`` steps.

A name is a word of the table below, a word of ``--with`` (``free:axonal``), or several joined by ``+``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import delaykit as dk
from delaykit_lab.methods import Method
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.words import nearest


class Named(NamedTuple):
    """A word of the table: methods, with ``{D}`` for the longest delay, ``{K}`` an odd window; or a richer neuron."""

    methods: tuple[str, ...] = ()
    neuron: str | None = None
    recurrent: str = "none"
    forward: str = "none"
    says: str = ""


ROWS = {
    "none": Named(says="the network as it is, at its own size"),
    "wider": Named(says="the network without delays, as large as the budget allows"),
    "delrec": Named(("delrec:axonal,max_delay={D}",), recurrent="learned", says="learned recurrent delays"),
    "frozen-delrec": Named(
        ("delrec:axonal,max_delay={D},control=frozen",), recurrent="frozen", says="random recurrent delays"
    ),
    "dcls": Named(("dcls:{K}",), forward="learned", says="learned forward delays, one a synapse"),
    "frozen-dcls": Named(("dcls:{K},control=frozen",), forward="frozen", says="random forward delays"),
    "both": Named(
        ("delrec:axonal,max_delay={D}", "dcls:{K}"), recurrent="learned", forward="learned",
        says="learned recurrent and forward delays",
    ),
    "frozen": Named(
        ("delrec:axonal,max_delay={D},control=frozen", "dcls:{K},control=frozen"), recurrent="frozen",
        forward="frozen", says="random recurrent and forward delays",
    ),
    "hetsyn": Named(("hetsyn",), says="a learned decay for each synapse instead of delays"),
    "motifs": Named(("motif:{M}",), says="a weight for each recurrent synapse and each of a few delays"),
    "adaptive-neurons": Named(neuron="adaptive", says="thresholds that rise with each spike, no delays"),
    "heterogeneous-taus": Named(neuron="heterogeneous", says="a learned membrane decay for each neuron, no delays"),
}  # fmt: skip
MOTIF_DEPTH = 8


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Args:
        name: as it was asked for.
        methods: words of ``--with``.
        neuron: of the network; None: the network's own.
        recurrent: ``none``, ``frozen`` or ``learned`` delays on recurrent connections.
        forward: the same for forward connections.
    """

    name: str
    methods: tuple[str, ...]
    neuron: str | None
    recurrent: str
    forward: str

    @classmethod
    def parse(cls, name: str, spec: ModelSpec, max_delay: int) -> Row:
        """Read a name, for a network without recurrent connections, too, which then have no delays.

        Raises:
            ConfigError: neurons of two kinds, or a model that has no such neurons.
            UnknownNameError: no such row or method; the nearest one is named, or the package to install.

        Example:
            >>> row = Row.parse("delrec+sparsify:0.5", ModelSpec.parse("rsnn:8"), 20)
            >>> row.methods, row.recurrent
            (('delrec:axonal,max_delay=20', 'sparsify:0.5'), 'learned')
        """
        methods: list[str] = []
        neuron, recurrent, forward = None, "none", "none"
        for word in name.split("+"):
            known = _named(word, max_delay)
            if neuron and known.neuron:
                fix = "make two rows of it"
                raise dk.ConfigError(f"method {name}", f"{neuron} and {known.neuron} neurons", "one kind", fix)
            methods += known.methods
            neuron = known.neuron or neuron
            recurrent = known.recurrent if known.recurrent != "none" else recurrent
            forward = known.forward if known.forward != "none" else forward
        if spec.kind not in ("rsnn", "norse") and name in ("frozen", "both"):
            methods, recurrent = methods[1:], "none"
        if neuron and spec.kind not in ("rsnn", "snn"):
            fix = "name a model of one of these kinds"
            raise dk.ConfigError(f"method {name}", f"a model {spec.kind}", "rsnn or snn", fix)
        numbers = {"D": max_delay, "K": max_delay + 1 - max_delay % 2, "M": min(MOTIF_DEPTH, max_delay)}
        return cls(name, tuple(word.format(**numbers) for word in methods), neuron, recurrent, forward)

    def spec(self, base: ModelSpec, sizes: tuple[int, ...]) -> ModelSpec:
        """Return the row's network, with layers of ``sizes``."""
        return dataclasses.replace(base, sizes=sizes, neuron=self.neuron or base.neuron)


def _named(word: str, max_delay: int) -> Named:
    if word in ROWS:
        return ROWS[word]
    kind = word.partition(":")[0]
    if kind == "spatial" and "scale" not in word:
        word = f"{word}{'' if ':' in word else ':2'},scale={max_delay / 3:.3g},max_ms={max_delay}"
    try:
        config = Method.parse(word).config
    except dk.UnknownNameError as problem:
        found = f"no method {word!r}{close}" if (close := nearest(kind, ROWS)) else problem.found
        expected = f"one of {', '.join(ROWS)}, or words of --with: {problem.expected}"
        raise dk.UnknownNameError("--methods", found, expected, problem.fix) from problem
    delays = config.kind == "delay"
    state = "frozen" if "frozen" in word or "learn=false" in word else "learned"
    forward = "@fc" in word or word.endswith(".input")  # snnTorch's and Norse's names of them
    on_recurrent = delays and config.name not in ("dcls", "spatial") and not forward
    on_forward = delays and config.name not in ("delrec", "motif") and (forward or "@lif" not in word)
    return Named((word,), recurrent=state if on_recurrent else "none", forward=state if on_forward else "none")
