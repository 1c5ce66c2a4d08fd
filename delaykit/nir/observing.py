"""What a network is made of and who hears whom, seen in one run of its example.

Every connection and neuron is watched with what it was given and what it returned. So a graph is not guessed from
names: an edge is there where the trace saw one, and what a part was given must be the sum of what its sources returned,
or the model does something in between that the graph would silently lack.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from delaykit.attaching.adapter import Neuron, Spot
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.connection.products import channel_space
from delaykit.attaching.retyping import original_class
from delaykit.errors import ConfigError, DelaykitError, ShapeError
from delaykit.nir.calling import Calls
from delaykit.planning.survey import survey
from delaykit.planning.trace import Call, run_example
from delaykit.wrapping.controls import Wrapped, wrapped_sites

SHAPING = (nn.Flatten, nn.AvgPool2d)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclasses.dataclass
class Part:
    """One connection, neuron or reshaping layer, and what the example showed of it.

    Args:
        name: its site name or path.
        kind: what it is.
        module: the module itself.
        spot: the connection, if it is one.
        neuron: the neuron, if it is one.
        sources: who it hears, with how many steps between.
        inputs: what it was given, ``(time, batch, *features)``.
        outputs: what it returned, likewise.
    """

    name: str
    kind: Literal["connection", "neuron", "shaping"]
    module: nn.Module
    spot: Spot | None = None
    neuron: Neuron | None = None
    sources: dict[str, int] = dataclasses.field(default_factory=dict)
    inputs: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    outputs: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))


@dataclasses.dataclass
class Observed:
    """A network as its example showed it.

    Args:
        parts: what was called, in the order of the first call.
        wrapped: the wrapped connections by site name, those inside neurons included.
        spots: all connections by site name.
        calls: what the model was called with and returned.
    """

    parts: dict[str, Part]
    wrapped: dict[str, Wrapped]
    spots: dict[str, Spot]
    calls: Calls

    def ends(self) -> list[Part]:
        """Return the parts that no other part hears; where each is heard, those whose outputs the model returned."""
        heard = {name for part in self.parts.values() for name in part.sources}
        last = [part for part in self.parts.values() if part.name not in heard]
        return last or [part for part in self.parts.values() if self.returns(part)]

    def returns(self, part: Part) -> bool | None:
        """Tell whether the model returned what the part did; None: it returned nothing of that size (a sum, say)."""
        own = part.outputs
        sizes = own.shape, own.transpose(0, 1).shape, own.squeeze(1).shape
        alike = [value for value in self.calls.returned() if value.shape in sizes]
        if not alike:
            return None
        return any(torch.equal(v.to(own), o) for v in alike for o in (own, own.transpose(0, 1), own.squeeze(1)))


class _Witness:
    """Keeps the first tensor that each watched call was given and returned, in the order of first calls."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, path: str, arguments: Any, output: Any) -> None:
        pair = [tensors_in(values)[0] for values in (arguments, output)]
        self.seen.setdefault(path, []).append((pair[0].detach().clone(), pair[1].detach().clone()))


def observe(net: nn.Module, example: Any) -> Observed:
    """Run the example once and return what was seen; spikes under way stay so.

    Args:
        net: the model, wrapped or bare.
        example: one sequence: a batch, a tuple of arguments, or a callable.

    Raises:
        DelaykitError: the run shows something that a graph of nodes cannot say.
    """
    try:
        wrapped = {site.name: site for site in wrapped_sites(net)}
    except ConfigError:
        wrapped = {}
    spots, neurons = survey(net)
    shaping = [Spot(path, "", m, 0, 0) for path, m in net.named_modules() if isinstance(m, SHAPING)]
    witness = _Witness()
    model = Calls(net, example, [s.module for s in (*spots, *shaping)] + [n.module for n in neurons.values()])
    try:
        with model.watching(begun=lambda: bool(witness.seen)):
            trace = run_example(net, model.example, [*spots, *shaping], list(neurons.values()), witness)
    except DelaykitError:
        raise
    except Exception as error:  # the user's model may raise anything
        found = f"{type(error).__name__}: {error}"
        raise ShapeError("to_nir example", found, "an example that the model runs", "pass one sequence") from error
    model.check_modes()
    owned = {spot.name for spot in spots if spot.owner is not None}
    calls = {**{f"site {k}": v for k, v in trace.sites.items()}, **{f"state {k}": v for k, v in trace.neurons.items()}}
    for name in owned & set(witness.seen):  # inside a neuron, and maybe called twice a step
        del witness.seen[name], calls[f"site {name}"]
    parts = _parts(spots, neurons, shaping, set(witness.seen))
    _connect(parts, calls, owned)
    _fill(parts, witness.seen, wrapped)
    for part in parts.values():
        _check_sum(part, parts)
    return Observed(parts, wrapped, {spot.name: spot for spot in spots}, model)


def _parts(spots: list[Spot], neurons: dict[str, Neuron], shaping: list[Spot], seen: set[str]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for spot in spots:
        if not spot.slot and spot.name in seen:
            parts[spot.name] = Part(spot.name, "connection", spot.module, spot)
    for spot in shaping:
        if spot.name in seen:
            parts[spot.name] = Part(spot.name, "shaping", spot.module)
    for path, neuron in neurons.items():
        if path in seen:
            parts[path] = Part(path, "neuron", neuron.module, None, neuron)
    return parts


def _connect(parts: dict[str, Part], calls: dict[str, list[Call]], owned: set[str]) -> None:
    """Find who each part hears, and whether at once or one step later."""
    steps = max((len(c) for c in calls.values()), default=1)
    for part in parts.values():
        own = calls[f"{'state' if part.kind == 'neuron' else 'site'} {part.name}"]
        if len(own) not in (1, steps):
            found = f"{len(own)} calls in {steps} steps"
            fix = "pass one sequence as example; give a layer that serves twice a copy of its own"
            raise ConfigError(part.name, found, "one call a step: a node of NIR is one thing in one place", fix)
        begun = [c.number for c in own if not c.state_tags]
        if part.kind == "neuron" and len(begun) > 1:
            found = f"{len(begun)} sequences in the example"
            raise ConfigError(part.name, found, "one", "pass one sequence as example")
        lags: dict[str, set[int]] = {}
        for call in own:
            for kind, source, number in call.tags:
                if source in owned or (kind == "state" and source == part.name and part.kind == "neuron"):
                    continue
                one = len(own) == len(calls[f"{kind} {source}"])
                lags.setdefault(source, set()).add(call.number - number if one else 0)
        for source, found_lags in lags.items():
            if len(found_lags) > 1 or not found_lags <= {0, 1}:
                found = f"spikes of {source} from {sorted(found_lags)} steps ago"
                fix = "let the model pass spikes on in the same step, or recurrently one step later"
                raise ConfigError(part.name, found, "those of this step, or of the last one", fix)
            part.sources[source] = found_lags.pop()


def _fill(parts: dict[str, Part], seen: dict[str, list[tuple[Tensor, Tensor]]], wrapped: dict[str, Wrapped]) -> None:
    """Bring what was seen into the shape (time, batch, *features), whole sequences and single steps alike."""
    steps = max((len(pairs) for pairs in seen.values()), default=0)
    if not steps:
        fix = "pass a batch, or a function that runs the model for one sequence"
        raise ConfigError("to_nir example", "an example that runs nothing of the model", "one sequence", fix)
    for part in parts.values():
        pairs = seen[part.name]
        dim = _time_dim(part, pairs, steps, wrapped)
        for k, name in enumerate(("inputs", "outputs")):
            if dim is None:
                value = torch.stack([pair[k] for pair in pairs])
            else:
                value = pairs[0][k].movedim(dim, 0)
            features = _features(part, value, k == 0)
            setattr(part, name, value.reshape(value.shape[0], -1, *value.shape[value.ndim - features :]))


def _time_dim(part: Part, pairs: list[Any], steps: int, wrapped: dict[str, Wrapped]) -> int | None:
    """Say along which dimension one call holds a sequence; None where each call is a step."""
    site = wrapped.get(part.name)
    if site is not None and len(pairs) == 1 and site.attachment.timing.time_dim is not None:
        return site.attachment.timing.time_dim
    if len(pairs) > 1 or (steps == 1 and not (part.neuron is not None and part.neuron.style == "sequence")):
        whole = steps == 1 and site is None and pairs[0][0].ndim - _features(part, pairs[0][0], True) > 1
        return 0 if whole else None
    return part.spot.time_dim if part.spot is not None and part.spot.time_dim is not None else 0


def _features(part: Part, value: Tensor, given: bool) -> int:
    """Count the dimensions behind time and batch."""
    if part.kind == "connection":
        return 1 + channel_space(part.module)
    if isinstance(part.module, nn.AvgPool2d):
        return 3
    if isinstance(part.module, nn.Flatten):
        return max(1, value.ndim - 2)
    return max(1, value.ndim - 2)


def _check_sum(part: Part, parts: dict[str, Part]) -> None:
    """Raise where a part was given something else than the sum of what its sources returned."""
    if not part.sources:
        return
    total = torch.zeros_like(part.inputs)
    for name, lag in part.sources.items():
        given = parts[name].outputs
        late = torch.zeros_like(given) if lag else given
        if lag:
            late[lag:] = given[:-lag]
        if late.shape != total.shape:
            found = f"input of shape {tuple(total.shape)}, and {name} returned {tuple(late.shape)}, (time, batch, ...)"
            fix = "use nn.Flatten between them (NIR knows no other reshaping), or give the example as the net takes it"
            raise ConfigError(part.name, found, "the output of the layer before as it is", fix)
        total = total + late.to(total)
    tolerance = TOLERANCE.get(part.inputs.dtype, 1e-2)
    if not torch.allclose(total, part.inputs, rtol=tolerance, atol=tolerance):
        kind = original_class(part.module).__name__
        found = f"input that is not the sum of what {', '.join(part.sources)} returned"
        fix = "export a model that passes spikes from layer to layer as they are (no scaling, gating, membranes)"
        raise ConfigError(f"{part.name} ({kind})", found, "that sum: the edges of NIR add up and do nothing else", fix)


def node_name(path: str) -> str:
    """Return a name that file formats and importers take: no dots, no slashes, no leading digit."""
    name = path.replace(".", "_").replace("/", "_") or "neuron"
    return f"layer_{name}" if name[0].isdigit() else name
