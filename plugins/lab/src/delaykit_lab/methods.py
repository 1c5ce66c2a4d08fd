"""Methods by name: ``delrec:axonal,max_delay=40`` becomes rules for a network's connections.

A word names a component, its leading field, further fields, and with ``@`` the connections it is for. Without ``@`` it
goes where the method's paper puts it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit_lab.words import nearest, options_of, value_of

ALIASES = {"sparsify": "dynamic_sparsity", "motifs": "motif"}
KINDS = ("delay", "heterogeneity", "pruning")
PLACES = {"delrec": "recurrent", "motif": "recurrent", "dcls": "forward", "spatial": "forward"}  # others: both


@dataclasses.dataclass(frozen=True)
class Method:
    """One component for some of a network's connections.

    Args:
        text: the word it was read from.
        config: the component's config.
        pattern: of connections (fnmatch); None: where the paper puts it.
    """

    text: str
    config: Any
    pattern: str | None = None

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read ``name:first,field=value@pattern``.

        Raises:
            UnknownNameError: no component has that name; the nearest one, or the package to install.
            ConfigError: a field is unknown or out of range.

        Example:
            >>> Method.parse("free:axonal,max_delay=40@fc*").config.max_delay
            40
        """
        body, _, pattern = text.partition("@")
        name, _, rest = body.partition(":")
        name = name.strip()
        if not name:
            raise dk.ConfigError("--with", repr(text), "the name of a method", "e.g. free:axonal,max_delay=40")
        config = _config_class(ALIASES.get(name, name), name)
        words = [word.strip() for word in rest.split(",") if word.strip()]
        first = words[:1] if words and "=" not in words[0] else []
        fields = options_of(f"--with {name}", words[len(first) :])
        known = [field.name for field in dataclasses.fields(config)]
        for field in fields:
            if field not in known:
                found = f"field {field!r}{nearest(field, known)}"
                raise dk.ConfigError(f"--with {name}", found, f"one of {', '.join(known)}", "correct the option")
        return cls(text, config(*(value_of(word) for word in first), **fields), pattern.strip() or None)

    def sites(self, net: nn.Module) -> list[str]:
        """Names of the connections of ``net`` that it is for.

        Raises:
            ConfigError: there are none.
        """
        forward, recurrent = list(net.forward_sites), list(net.recurrent_sites)  # type: ignore[arg-type]
        if self.pattern is not None:
            found = fnmatch.filter([*forward, *recurrent], self.pattern)
        else:
            place = PLACES.get(self.config.name, "both")
            found = {"recurrent": recurrent, "forward": forward}.get(place, [*forward, *recurrent])
        if not found:
            there = ", ".join([*forward, *recurrent])
            fix = "name them, e.g. free:axonal@fc*, or use a model that has such connections"
            asked = self.pattern or f"a {PLACES.get(self.config.name)} connection"
            raise dk.ConfigError(f"--with {self.text}", f"no {asked} in this model (it has {there})", "one", fix)
        return found


def with_estimator(methods: Sequence[Method], estimator: str | None, rounding: str | None) -> list[Method]:
    """Set ``estimator`` and ``rounding`` of all delays that have such a field and do not set it themselves.

    Raises:
        ConfigError: one was given, and no method has the field.
    """
    out = list(methods)
    for field, value in (("estimator", estimator), ("rounding", rounding)):
        if value is None:
            continue
        fits = [any(f.name == field for f in dataclasses.fields(method.config)) for method in out]
        if not any(fits):
            fix = "use it with --with free, delrec or dcls"
            raise dk.ConfigError(f"--{field}", repr(value), "a method that has it", fix)
        out = [
            dataclasses.replace(method, config=dataclasses.replace(method.config, **{field: value}))
            if fit and f"{field}=" not in method.text
            else method
            for method, fit in zip(out, fits, strict=True)
        ]
    return out


def apply_(net: nn.Module, methods: Sequence[Method], example: Tensor, seed: int) -> nn.Module:
    """Wrap the connections of ``net`` in place; nothing to do without methods.

    Args:
        net: a network with ``forward_sites``, ``recurrent_sites``, and ``whole_sites`` that are called once a sequence.
        methods: of which several may share a connection.
        example: spikes ``(time, batch, channel)``.
        seed: of random delays.
    """
    rules: dict[str, list[Any]] = {}
    for method in methods:
        for site in method.sites(net):
            rules.setdefault(site, []).append(method.config)
    if rules:
        whole = set(net.whole_sites)  # type: ignore[arg-type]
        at = {site: dk.At(*parts, time_dim=0) if site in whole else tuple(parts) for site, parts in rules.items()}
        dk.wrap_(net, at, example=example, generator=torch.Generator().manual_seed(seed))
    return net


def is_wrapped(net: nn.Module) -> bool:
    """Tell whether any connection of ``net`` was wrapped."""
    try:
        return bool(dk.wrapped_sites(net))
    except dk.ConfigError:
        return False


def _config_class(name: str, asked: str) -> Any:
    there = {record.name: kind for kind in KINDS for record in dk.components(kind)}
    if name in there:
        return dk.resolve(there[name], name)
    known = sorted({*there, *ALIASES})
    found, expected = f"no method {asked!r}{nearest(asked, known)}", f"one of {', '.join(known)}"
    try:
        return dk.resolve("delay", name)
    except dk.UnknownNameError as problem:  # which says what to install
        raise dk.UnknownNameError("--with", found, expected, problem.fix) from None
