"""Layers that see a whole sequence in one call: which dimension is time must not be guessed from sizes."""

from __future__ import annotations

import pytest
import torch
from rigs import arrivals, late, leaky, ones, spikes
from torch import nn

import delaykit as dk


class Flattened(nn.Module):
    """``fc`` on time x batch flattened, as people do it to save calls; then the loop."""

    def __init__(self, channels=1):
        super().__init__()
        self.fc, self.lif = ones(channels, channels), leaky()

    def forward(self, x):
        time, batch = x.shape[:2]
        drive = self.fc(x.flatten(0, 1)).unflatten(0, (time, batch))
        self.drive = drive.detach()
        mem = self.lif.reset_mem()
        for t in range(time):
            _, mem = self.lif(drive[t], mem)
        return mem


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_flattened_time_and_batch_are_refused_or_exact(batch):
    """Whatever the example's sizes: the spike of sample 0 reaches sample 0 alone."""
    net = Flattened()
    try:
        dk.wrap_(net, {"fc": late(3)}, example=spikes(6, batch=batch))
    except dk.WrapError as error:
        assert "time_dim" in str(error) or "time" in str(error)
        return
    net(spikes(6, 1, batch=3))
    assert arrivals(net.drive) == {4: 1.0} and arrivals(net.drive, 1) == {} == arrivals(net.drive, 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_flattened_patches_are_refused_or_exact(batch):
    """The same with another dimension behind, which looks like a batch."""

    class Patches(Flattened):
        def forward(self, x):  # (time, batch, patch, channel)
            time, batch = x.shape[:2]
            drive = self.fc(x.flatten(0, 1)).unflatten(0, (time, batch))
            self.drive = drive.detach()
            mem = self.lif.reset_mem()
            for t in range(time):
                _, mem = self.lif(drive[t], mem)
            return mem

    net = Patches()
    try:
        dk.wrap_(net, {"fc": late(3)}, example=torch.zeros(6, batch, 4, 1))
    except dk.WrapError as error:
        assert "time" in str(error)
        return
    x = torch.zeros(6, 3, 4, 1)
    x[1, 0, 0] = 1.0
    net(x)
    assert arrivals(net.drive) == {4: 1.0} and arrivals(net.drive, 1) == {}


class Still(nn.Module):
    """A still image is encoded once and shown at every step."""

    def __init__(self):
        super().__init__()
        self.enc, self.lif = ones(), leaky()

    def forward(self, image, steps=6):
        drive, mem = self.enc(image), self.lif.reset_mem()
        for _ in range(steps):
            _, mem = self.lif(drive, mem)
        return mem


class Pooled(Still):
    """As before, with a mean over patches in between."""

    def forward(self, image, steps=6):
        drive, mem = self.enc(image).mean(1), self.lif.reset_mem()
        for _ in range(steps):
            _, mem = self.lif(drive, mem)
        return mem


@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("patches", [None, 4, 6])
def test_a_still_image_is_refused_whatever_its_sizes(batch, patches):
    net = Still() if patches is None else Pooled()
    image = torch.ones(batch, 1) if patches is None else torch.ones(batch, patches, 1)
    with pytest.raises(dk.WrapError, match="enc"):
        dk.wrap_(net, {"enc": late(2)}, example=image)


class Whole(nn.Module):
    """A layer on the whole sequence, time first, then the loop: the one that is meant."""

    def __init__(self, dim=0):
        super().__init__()
        self.fc, self.lif, self.dim = ones(), leaky(), dim

    def forward(self, x):
        drive, mem = self.fc(x), self.lif.reset_mem()
        for step in drive.unbind(self.dim):
            _, mem = self.lif(step, mem)
        self.drive = drive.detach().movedim(self.dim, 0)
        return mem


@pytest.mark.parametrize("dim", [0, 1])
def test_whole_sequences_are_still_found(dim):
    net = Whole(dim)
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6, batch=2).transpose(0, dim))
    net(spikes(6, 1, batch=3).transpose(0, dim))
    assert arrivals(net.drive) == {4: 1.0} and arrivals(net.drive, 1) == {}


@pytest.mark.parametrize("dim", [0, 1])
def test_as_many_samples_as_steps(dim):
    """Two dimensions fit: told apart by what the neuron hears, or refused."""
    net = Whole(dim)
    try:
        dk.wrap_(net, {"fc": late(3)}, example=spikes(6, batch=6))
    except dk.WrapError as error:
        assert "time_dim" in str(error)
        dk.wrap_(net, {"fc": dk.At(late(3), time_dim=dim)}, example=spikes(6, batch=6))
    net(spikes(6, 1, batch=3).transpose(0, dim))
    assert arrivals(net.drive) == {4: 1.0} and arrivals(net.drive, 1) == {}


def test_a_named_time_dim_that_is_the_flattened_one_is_refused_or_exact():
    net = Flattened()
    try:
        dk.wrap_(net, {"fc": dk.At(late(3), time_dim=0)}, example=spikes(6, batch=2))
        net(spikes(6, 1, batch=3))
    except dk.DelaykitError:
        return
    assert arrivals(net.drive) == {4: 1.0} and arrivals(net.drive, 1) == {}
