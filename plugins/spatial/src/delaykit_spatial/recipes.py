"""How the paper trains: positions move ten times as fast as weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from delaykit import Delay, checks

FACTOR = 10.0


@checks.annotated
def spatial_param_groups(
    net: nn.Module, lr: float, factor: float = FACTOR, weight_decay: float = 0.0, **options: Any
) -> list[dict[str, Any]]:
    """Split a net's parameters: weights, and the positions and other parameters of delays at ``factor`` times the rate.

    With Adam the size of an update is the rate, so updates of positions are ``factor`` times as large. A position
    that several connections share is in the second group once. Works for wrapped nets and for this plugin's neurons.

    Args:
        net: any net with delays.
        lr: rate of the weights, > 0.
        factor: rate of the delays over that of the weights, > 0.
        weight_decay: of the weights only: it would pull all neurons together.
        **options: passed into both groups.

    Example:
        >>> import delaykit as dk
        >>> from delaykit_spatial import Spatial
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        >>> rules = {"0": Spatial(2, pre="a", post="b"), "1": Spatial(2, pre="b", post="a")}
        >>> _ = dk.wrap_(net, {k: dk.At(rule, reset="manual") for k, rule in rules.items()})
        >>> [(g["name"], len(g["params"]), g["lr"]) for g in spatial_param_groups(net, 1e-3)]
        [('model', 4, 0.001), ('positions', 2, 0.01)]

    Reference: Landsmeer, Movahedin et al. 2025: Adam at 1e-3, position and delay updates times 10.
    """
    for name, value in (("lr", lr), ("factor", factor)):
        checks.number(f"spatial_param_groups {name}", value, above=0)
    late = {id(p) for m in net.modules() if isinstance(m, Delay) for p in m.parameters()}
    trained = [p for p in net.parameters() if p.requires_grad]
    weights, delays = ([p for p in trained if (id(p) in late) is want] for want in (False, True))
    return [
        {"params": weights, "lr": lr, "weight_decay": weight_decay, "name": "model", **options},
        {"params": delays, "lr": factor * lr, "weight_decay": 0.0, "name": "positions", **options},
    ]
