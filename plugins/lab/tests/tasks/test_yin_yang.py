"""The figure against its geometry, the encoding against its formula, the loss against finite numbers."""

from __future__ import annotations

import math

import pytest
import torch

from delaykit import ConfigError, ShapeError
from delaykit_lab.tasks.yin_yang import Points, YinYang, class_of, draw, first_spike_loss, first_to_spike


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc(count: int) -> torch.Tensor:
    points = torch.rand(count, 2, generator=seeded(), dtype=torch.float64)
    return points[(points - 0.5).norm(dim=1) < 0.5]


def test_yin_and_yang_are_each_others_half_turn_and_the_dots_their_own() -> None:
    points = disc(20000)
    here, there = class_of(points), class_of(1.0 - points)
    inside = (points - torch.tensor([0.25, 0.5])).norm(dim=1) - 0.25
    turned = torch.where(here == 2, 2, 1 - here)
    at_the_edge = inside.abs() < 1e-9  # which of the two a border belongs to is no symmetry
    assert torch.equal(there[~at_the_edge], turned[~at_the_edge])


def test_the_areas_are_those_of_the_figure() -> None:
    share = class_of(disc(400_000)).bincount().double()
    share = share / share.sum()
    dots = 2 * 0.1**2 / 0.5**2
    assert share.tolist() == pytest.approx([(1 - dots) / 2, (1 - dots) / 2, dots], abs=0.003)


@pytest.mark.parametrize(
    ("place", "name"),
    [((0.5, 0.9), 1), ((0.5, 0.1), 0), ((0.25, 0.35), 1), ((0.75, 0.65), 0), ((0.25, 0.45), 2), ((0.75, 0.55), 2)],
)
def test_known_places(place: tuple[float, float], name: int) -> None:
    assert class_of(torch.tensor([place])).tolist() == [name]


def test_points_lie_in_the_disc_balanced_and_in_no_order() -> None:
    points = draw(3001, seeded())
    assert float((points.places - 0.5).norm(dim=1).max()) <= 0.5
    assert sorted(points.labels.bincount().tolist()) == [1000, 1000, 1001]
    assert len(points.labels[:100].unique()) == 3 and torch.equal(points.labels, class_of(points.places))


def test_each_class_is_uniform_over_its_part() -> None:
    dots = draw(30000, seeded())
    dots = dots.places[dots.labels == 2]
    left = dots[dots[:, 0] < 0.5] - torch.tensor([0.25, 0.5])
    assert len(left) / len(dots) == pytest.approx(0.5, abs=0.02)
    assert float(left.square().sum(1).mean()) == pytest.approx(0.1**2 / 2, rel=0.03)  # mean of r^2 over a disc


def test_a_seed_draws_the_same_points_the_test_points_never_change() -> None:
    task = YinYang(samples=30, held=12)
    one, same, other = task.points(0), task.points(0), task.points(1)
    assert torch.equal(one.train.places, same.train.places) and not torch.equal(one.train.places, other.train.places)
    assert not torch.equal(one.validation.places, other.validation.places)
    assert torch.equal(one.test.places, other.test.places)


def test_spikes_come_at_the_times_of_the_formula() -> None:
    points = Points(torch.tensor([[0.2, 0.7]]), torch.tensor([0]))
    assert points.times_ms()[0].tolist() == pytest.approx([0.9, 2.9, 3.3, 1.3])
    frames = points.frames(0.05, 60)  # 3 ms: the third input is too late
    assert frames.spikes[:, 0].nonzero().tolist() == [[18, 0], [26, 3], [58, 1]]
    assert YinYang(samples=30, held=3, dt_ms=0.5).splits(0).test.spikes.shape == (24, 3, 4)


def test_the_loss_counts_every_wrong_output_and_no_right_one() -> None:
    times = torch.tensor([[1.0, 1.5, 0.7]], dtype=torch.float64)
    soft = [math.log1p(math.exp(4.0 * (1.0 - t + 0.1))) for t in (1.5, 0.7)]
    assert float(first_spike_loss(times, torch.tensor([0]), 4.0, 0.1)) == pytest.approx(sum(soft))
    both = first_spike_loss(times.expand(2, 3), torch.tensor([0, 0]), 4.0, 0.1)
    assert float(both) == pytest.approx(sum(soft))


def test_the_loss_has_the_gradient_of_its_formula() -> None:
    times = torch.rand(5, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    assert torch.autograd.gradcheck(lambda t: first_spike_loss(t, labels, 3.0, 0.2), times)
    first_spike_loss(times, labels).backward()
    assert bool((times.grad.gather(1, labels[:, None]) > 0).all())  # an earlier right spike is better


def test_a_silent_right_output_counts_but_pushes_nobody() -> None:
    times = torch.tensor([[13.0, 2.0, 3.0], [1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0])
    assert torch.equal(first_spike_loss(times, labels, silent=12.0), first_spike_loss(times, labels))
    first_spike_loss(times, labels, silent=12.0).backward()
    assert times.grad is not None and not times.grad[0].any() and bool(times.grad[1].all())


def test_a_tie_and_silence_are_no_answer() -> None:
    times = torch.tensor([[3.0, 2.0, 2.5], [2.0, 2.0, 3.0], [12.0, 12.0, 12.0]])
    assert first_to_spike(times).tolist() == [1, -1, -1]


@pytest.mark.parametrize("options", [{"samples": 2}, {"held": 0}, {"dt_ms": 0.0}, {"duration_ms": -1.0}])
def test_bad_numbers_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        YinYang(**options)


def test_bad_shapes_and_sharpness_are_refused() -> None:
    with pytest.raises(ShapeError):
        Points(torch.rand(3, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ConfigError):
        first_spike_loss(torch.rand(1, 3), torch.tensor([0]), sharpness=0.0)
