"""Two circles of equal weights: what can be learned by moving alone.

Sixteen sensors in a ring hear a wave from one of eight directions; hidden neurons start on two circles, every weight
from the sensors is the same number and stays it. Positions learn, or do not; the readout learns in both.

    python plugins/spatial/reproduce/two_circles.py
"""

from __future__ import annotations

import math
from pathlib import Path

import snntorch as snn
import torch
from matplotlib import pyplot as plt
from snntorch import surrogate
from torch import Tensor, nn

import delaykit as dk
from delaykit import plotting
from delaykit_lab import command_line, read_options, record_path, remembered
from delaykit_spatial import PositionHistory, Spatial, equal_weights_, position_map, spatial_param_groups

SENSORS, HIDDEN, DIRECTIONS, TIME, SWEEP, RADIUS = 16, 8, 8, 48, 6.0, 12.0
AROUND = torch.arange(SENSORS) * 2 * math.pi / SENSORS
RING = (RADIUS * torch.stack([AROUND.cos(), AROUND.sin()], 1)).tolist()


def draw(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw waves: every sensor fires once, the nearest to the source first; jitter and stray spikes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(DIRECTIONS, (samples,), generator=generator)
    start = torch.rand(samples, 1, generator=generator) * 6 + 2
    when = start + SWEEP * (1 - torch.cos(AROUND - labels[:, None] * 2 * math.pi / DIRECTIONS))
    when += 0.7 * torch.randn(samples, SENSORS, generator=generator)
    spikes = (torch.rand(TIME, samples, SENSORS, generator=generator) < 0.01).float()
    spikes.scatter_(0, when.round().clamp(0, TIME - 1).long().unsqueeze(0), 1.0)
    return spikes, labels


class Net(nn.Module):
    """Sensors, one hidden layer that forgets within two steps, spike counts as the result."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.fc1 = nn.Linear(SENSORS, hidden, bias=False)
        self.lif = snn.Leaky(beta=0.6, spike_grad=surrogate.atan(alpha=3.0), reset_mechanism="zero")
        self.fc2 = nn.Linear(hidden, DIRECTIONS)

    def forward(self, x: Tensor) -> Tensor:
        """Run (time, batch, sensor) to logits."""
        return self.fc2(dk.rollout(self.lif, self.fc1(x))[0]).sum(0)


def train(seed: int, moves: bool, epochs: int) -> tuple[float, Net, PositionHistory]:
    """Train one net; return its test accuracy, the net, and where its neurons were."""
    torch.manual_seed(seed)
    (train_x, train_y), (test_x, test_y) = draw(1024, 100 + seed), draw(1024, 200 + seed)
    net, history = Net(), PositionHistory()
    places = Spatial(2, pre="sensors", post="hidden", pre_init=RING, init="two_circles", scale=RADIUS / 2, learn=moves)
    dk.wrap_(net, {"fc1": dk.At(places, time_dim=0)}, example=train_x[:, :2])
    equal_weights_(net, 0.2)
    net.fc1.weight.requires_grad_(False)
    optimizer = torch.optim.Adam(spatial_param_groups(net, lr=3e-3, factor=30))
    dk.attach(optimizer, net)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        history.record(net)
        for rows in torch.randperm(1024).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(train_x[:, rows]), train_y[rows]).backward()
            optimizer.step()
        schedule.step()
    history.record(net)
    with torch.no_grad():
        return float((net(test_x).argmax(1) == test_y).float().mean()), net, history


def main() -> None:
    """Train the nets that have no record; draw the first one with the way its neurons took."""
    options = read_options(command_line(__doc__, out="runs/spatial_two_circles", epochs=True))
    epochs, found = options.epochs or 20, {}
    for moves in (True, False):
        for seed in range(options.seeds):
            settings = {"moves": moves, "seed": seed, "epochs": epochs, "hidden": HIDDEN}
            path = record_path(options.out, settings, f"{'moving' if moves else 'still'}_{seed}")
            run = lambda seed=seed, moves=moves: {"test": train(seed, moves, epochs)[0]}  # noqa: E731
            found.setdefault("moving" if moves else "still", []).append(remembered(path, settings, run)["test"])
    print(found)
    if not (options.out / "two_circles.png").exists():
        picture(*train(0, True, epochs), options.out / "two_circles.png")


def picture(test: float, net: Net, history: PositionHistory, path: Path) -> None:
    """Draw where the neurons of one net went."""
    with plotting.style():
        figure, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
        position_map(net, ax, history=history, connections=0)
        ax.set_title(f"equal weights, two circles: test accuracy {100 * test:.0f} %")
        figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
