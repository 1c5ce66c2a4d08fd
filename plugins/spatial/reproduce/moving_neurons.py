"""Neurons that move to where their wave arrives all at once: the animation of the READMEs.

Sixteen sensors in a ring hear a wave from one of eight directions; the hidden neurons start together in the middle.
Left: where they are, in the colour of the direction that each votes for. Right: when the spikes of a wave from 90
degrees reach the neuron that votes for it most in the end.

    python plugins/spatial/reproduce/moving_neurons.py --out plugins/spatial/docs
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from torch import nn
from two_circles import AROUND, DIRECTIONS, RING, SWEEP, Net, draw

import delaykit as dk
from delaykit import plotting
from delaykit_lab import command_line, read_options
from delaykit_spatial import PositionHistory, Spatial, spatial_param_groups

EPOCHS, LABEL = 30, 2
FRAME_MS, LAST_MS = 160, 2500  # the last picture stands for a while


def train() -> tuple[nn.Module, PositionHistory]:
    """Train one net; the loss is the only thing that moves its neurons."""
    torch.manual_seed(1)
    net, history = Net(24), PositionHistory()
    with torch.no_grad():
        net.fc1.weight.uniform_(0.1, 0.3)
    middle = torch.randn(24, 2, generator=torch.Generator().manual_seed(7)).tolist()
    x, y = draw(1024, 1)
    rule = Spatial(2, pre="sensors", post="hidden", pre_init=RING, init=middle)
    dk.wrap_(net, {"fc1": dk.At(rule, time_dim=0)}, example=x[:, :2])
    net.fc1.dk.delay.pre_positions.requires_grad_(False)  # the sensors stay where they are
    optimizer = torch.optim.Adam(spatial_param_groups(net, lr=3e-3, factor=30))
    dk.attach(optimizer, net)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    order = torch.Generator().manual_seed(2)
    history.record(net)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(y), generator=order).split(64):
            loss = nn.functional.cross_entropy(net(x[:, index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        history.record(net)
    return net, history


def animate(net: Any, history: PositionHistory, path: Path) -> None:
    """Write the animation."""
    sensors, hidden = (history.trajectories(name).numpy() for name in ("sensors", "hidden"))
    votes = net.fc2.weight.detach().argmax(0).numpy()
    neuron = int(net.fc2.weight[LABEL].argmax())
    lag = (SWEEP * (1 - torch.cos(AROUND - LABEL * 2 * np.pi / DIRECTIONS))).numpy()
    late = np.linalg.norm(sensors - hidden[:, neuron : neuron + 1], axis=2)  # 1 length unit a ms
    with plotting.style():
        figure = Figure(figsize=(7.2, 3.3), dpi=75)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))

        def _frame(left: Any, right: Any, k: int) -> None:
            left.clear()
            right.clear()
            for way in np.swapaxes(hidden[: k + 1], 0, 1):
                left.plot(*way.T, color=plotting.GREY, linewidth=0.7, alpha=0.5)
            left.scatter(*sensors[k].T, s=26, color=plotting.INK, label="sensors")
            left.scatter(*hidden[k].T, s=30, c=votes, cmap="hsv", vmin=0, vmax=DIRECTIONS)
            left.scatter(*hidden[k, neuron], s=110, facecolors="none", edgecolors=plotting.INK)
            left.set(xlim=(-17, 17), ylim=(-17, 17), aspect="equal", xlabel="x (ms)", ylabel="y (ms)")
            left.set_title(f"epoch {k}: neurons (colours) move")
            arrive = lag + late[k]
            channels = np.arange(len(lag))
            right.hlines(channels, lag, arrive, color=plotting.GREY, linewidth=0.8, alpha=0.5)
            right.scatter(lag, channels, s=50, marker="|", color=plotting.INK, linewidths=1.2, label="spike")
            right.scatter(arrive, channels, s=22, color=plotting.CATEGORIES[1], label="arrival")
            right.set(xlim=(-1, 36), ylim=(-0.7, len(lag) - 0.3), xlabel="time (ms)", ylabel="sensor")
            right.set_yticks(range(0, len(lag), 5))
            right.set_title(f"a wave arrives within ± {arrive.std():.1f} ms")
            for ax in (left, right):
                ax.legend(loc="lower right" if ax is left else "center right", fontsize=8)

        frames = FuncAnimation(figure, lambda k: _frame(left, right, k), frames=len(hidden))
        frames.save(path, PillowWriter(fps=6), dpi=100)
    _shrink(path)


def _shrink(path: Path) -> None:
    """Write the file again with 48 colours and what changed from picture to picture."""
    from PIL import Image

    with Image.open(path) as animation:
        frames = []
        for k in range(animation.n_frames):
            animation.seek(k)
            frames.append(animation.convert("RGB"))
    palette = frames[-1].quantize(48, dither=Image.Dither.NONE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    stands = [FRAME_MS] * (len(small) - 1) + [LAST_MS]
    small[0].save(path, save_all=True, append_images=small[1:], duration=stands, loop=0, optimize=True)


def main() -> None:
    """Train and draw."""
    options = read_options(command_line(__doc__, out="runs/spatial_moving"))
    path = options.out / "moving_neurons.gif"
    animate(*train(), path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
