"""A connection of this plugin's own neurons: weights, and the places that make their delays."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from delaykit import ConfigError, Delay, Site, checks
from delaykit.sizes import remember_sizes_
from delaykit_spatial.config import Spatial
from delaykit_spatial.delay import SpatialDelay

INPUT, RECURRENT, READOUT = 400.0, 35.0, 1.0  # the paper's factors f


@checks.annotated
class SpatialConnection(nn.Module):
    """Hold ``weight`` (post, pre) and ``delay`` of one connection; the neuron that it drives runs it.

    Args:
        site: name, sizes, and whether it is recurrent.
        config: geometry.
        factor: weights start at ``factor |U(-0.2, 0.8)| / (pre post)``.
        generator: source of the first weights and positions.
    """

    def __init__(self, site: Site, config: Spatial, factor: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        checks.number(f"{site.name} factor", factor)
        if generator is not None and not isinstance(generator, torch.Generator):
            fix = "pass generator=torch.Generator().manual_seed(0)"
            raise ConfigError(site.name, f"a {type(generator).__name__}", "a torch.Generator or None", fix)
        drawn = torch.rand(site.post, site.pre, generator=generator) - 0.2
        self.weight = nn.Parameter(drawn.abs() * factor / (site.pre * site.post))
        self.delay: SpatialDelay = config.build(site, generator)
        remember_sizes_(self.delay)

    @property
    def masked_weight(self) -> Tensor:
        """The weight, without self connections where those are cut."""
        if not self.delay.masked:
            return self.weight
        return self.weight.masked_fill(torch.eye(len(self.weight), dtype=torch.bool, device=self.weight.device), 0.0)


@checks.annotated
def share_positions_(net: nn.Module) -> nn.Module:
    """Let all connections of a net share the positions of the populations that they name alike.

    Wrapping does this by itself; a net built of this plugin's neurons calls it once.

    Args:
        net: the model; it is changed, and returned.

    Raises:
        ConfigError: two connections disagree about a population.
    """
    checks.is_model("share_positions_", net)
    earlier: list[Delay] = []
    for module in net.modules():
        if isinstance(module, SpatialDelay):
            module.meet_(tuple(earlier))
            earlier.append(module)
    return net


def input_factor(neurons: int) -> float:
    """Return the paper's factor of input weights, 400 g, g = 50 (N > 200), 10 (N > 50) or 3."""
    return INPUT * (50.0 if neurons > 200 else 10.0 if neurons > 50 else 3.0)
