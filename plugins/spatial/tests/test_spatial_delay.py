"""Delays are distances: the equation, its bounds, what nobody hears of himself, and input that is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import delaykit as dk
from delaykit.interfaces import Site
from delaykit_spatial import Spatial, Torus, register_metric

PRE, POST = 4, 3
FORWARD, LOOP = Site("fc", PRE, POST), Site("lif.recurrent", POST, POST, recurrent=True, neuron="lif")


def build(dims=2, site=FORWARD, seed=0, **options):
    return Spatial(dims, **options).build(site, torch.Generator().manual_seed(seed)).double()


def by_hand(delay, floor=0.01, velocity=1.0, tortuosity=0.0):
    """The equation, synapse by synapse, in plain Python numbers."""
    post, pre = delay.post_positions.tolist(), delay.pre_positions.tolist()
    bend = torch.zeros(len(post), len(pre)) if delay.bend is None else delay.bend
    rows = []
    for j, r in enumerate(post):
        row = []
        for i, q in enumerate(pre):
            straight = math.sqrt(floor + sum((a - b) ** 2 for a, b in zip(r, q, strict=True)))
            row.append((1 + tortuosity / 2 * (1 + math.tanh(bend[j, i].item()))) * straight / velocity)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 2, 3, 7])
def test_a_delay_is_the_distance_over_the_velocity(dims: int) -> None:
    delay = build(dims, velocity=0.5, dt_ms=0.25, floor=0.04)
    torch.testing.assert_close(delay.delays_ms(), by_hand(delay, 0.04, 0.5))
    torch.testing.assert_close(delay.delays(), by_hand(delay, 0.04, 0.5) / 0.25)
    assert sum(p.numel() for p in delay.parameters()) == dims * (PRE + POST)


def test_a_recurrent_latency_counts_the_step_that_a_spike_takes_anyhow() -> None:
    delay = build(2, LOOP, dt_ms=0.5)
    steps = by_hand(delay) / 0.5
    torch.testing.assert_close(delay.delays(), (steps - 1).clamp(min=0))
    assert bool((delay.delays().diagonal() == 0).all()) and not bool((steps.diagonal() >= 1).any())


def test_the_bound_of_a_recurrent_delay_passes_the_gradient() -> None:
    delay = build(1, LOOP, init=[[0.0], [0.3], [5.0]])
    assert delay.delays()[0, 1].item() == 0.0
    delay.delays()[0, 1].backward()
    wanted = -0.3 / math.sqrt(0.01 + 0.09)
    assert delay.post_positions.grad[:, 0].tolist() == pytest.approx([wanted, -wanted, 0.0])


def test_a_longest_latency_clips_the_value_and_not_the_gradient() -> None:
    delay = build(1, init=[[0.0]] * POST, pre_init=[[9.0]] * PRE, max_ms=4.0)
    assert delay.delays().tolist() == [[4.0] * PRE] * POST and delay.longest() == 8
    delay.delays().sum().backward()
    assert bool(delay.pre_positions.grad.all())


def test_tortuous_paths_are_between_one_and_one_plus_eps_distances() -> None:
    delay, straight = build(2, tortuosity=0.8, floor=0.0), build(2, floor=0.0)
    torch.testing.assert_close(delay.lengths(), 1.4 * straight.lengths())
    with torch.no_grad():
        delay.bend.uniform_(-2, 2)
    torch.testing.assert_close(delay.lengths(), by_hand(delay, 0.0, tortuosity=0.8))
    for far, factor in ((-30.0, 1.0), (30.0, 1.8)):
        delay.bend.data.fill_(far)
        torch.testing.assert_close(delay.lengths(), factor * straight.lengths())
    delay.project_()
    assert bool((delay.bend == 5.0).all())


def test_no_dimension_is_the_floor_and_infinitely_many_are_free() -> None:
    none, free = build(0, dt_ms=0.05), build(math.inf, mean=8.0, scale=1.0)
    assert none.delays().shape == (1, 1) and float(none.delays()) == pytest.approx(2.0)
    assert not list(none.parameters())
    assert torch.equal(free.delays(), free.path) and free.path.shape == (POST, PRE)
    assert abs(free.path.mean().item() - 8) < 1.5
    free.path.data[0, 0] = -2.0
    free.delays()[0, 0].backward()
    assert free.delays()[0, 0].item() == 0.0 and float(free.path.grad[0, 0]) == 1.0, "clipped in the value only"


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_neurons_at_one_place_have_a_finite_gradient(floor: float) -> None:
    delay = build(2, floor=floor, scale=0.0)
    delay.delays().sum().backward()
    assert torch.isfinite(delay.post_positions.grad).all() and torch.isfinite(delay.pre_positions.grad).all()
    assert bool((delay.delays() == math.sqrt(floor)).all())


def test_nobody_hears_himself_unless_asked() -> None:
    """The diagonal of the weight keeps its values; nothing passes through it, forward or backward."""
    for dims in (0, 2, math.inf):
        weight = torch.ones(POST, POST, dtype=torch.float64, requires_grad=True)
        delay = build(dims, LOOP)
        response = delay.impulse_response(weight)
        assert bool((response.diagonal() == 0).all())
        response.sum().backward()
        assert torch.equal(weight.grad == 0, torch.eye(POST, dtype=torch.bool))
        taps = delay.kernel().taps(delay.delays())
        torch.testing.assert_close(taps.response(response.shape[-1]), response.detach())
        whole = delay.kernel().whole(delay.delays())
        assert bool((whole.value.squeeze(0) == 1 - torch.eye(POST)).all())
        with_self = build(dims, LOOP, self_connections=True)
        assert bool(with_self.impulse_response(weight).diagonal().sum(0).all())
    assert bool((build(2).impulse_response(torch.ones(POST, PRE).double()).sum(-1) > 0.99).all()), "feed-forward: all"


def test_a_connection_of_a_population_onto_itself_is_recurrent() -> None:
    delay = build(2, Site("loop", POST, POST), pre="hidden", post="hidden")
    assert delay.recurrent and delay.masked and delay.pre_positions is delay.post_positions


def test_depth_follows_the_largest_delay() -> None:
    """The published ring buffer lets a delay of 46 ms arrive at 4 ms."""
    delay = build(1, floor=0.0, init=[[0.0]] * POST, pre_init=[[46.0], [1.0], [2.0], [3.0]])
    response = delay.impulse_response(torch.ones(POST, PRE).double())
    assert response[0, 0].nonzero().flatten().tolist() == [46]
    delay.pre_positions.data[0] = 300.0
    assert delay.impulse_response(torch.ones(POST, PRE).double())[0, 0].nonzero().flatten().tolist() == [300]


def test_discretized_delays_are_whole_and_positions_stay() -> None:
    delay = build(2, FORWARD)
    exact, before = delay.delays().detach(), delay.post_positions.detach().clone()
    delay.discretize_()
    assert torch.equal(delay.delays(), exact.round()) and torch.equal(delay.post_positions, before)


def test_the_torus_is_a_metric_like_any_other() -> None:
    torus = register_metric("a torus of 12", Torus(12.0))
    config = Spatial(2, metric="a torus of 12", floor=0.0, init=[[9.0, 0.0]] * POST, pre_init=[[1.0, 9.0]] * PRE)
    delay = config.build(FORWARD).double()
    torch.testing.assert_close(delay.lengths(), torch.full((POST, PRE), 5.0).double())
    torch.testing.assert_close(
        Spatial(2, metric=torus).build(FORWARD).lengths() <= math.sqrt(72.1), torch.ones(3, 4) > 0
    )
    assert Spatial(2, metric=torus).to_json()["metric"] == "a torus of 12"
    torch.manual_seed(0)
    leaves = [torch.rand(n, 2, dtype=torch.float64).mul(10).requires_grad_() for n in (3, 4)]
    torch.autograd.gradcheck(torus, leaves)


def test_a_metric_without_a_name_runs_but_is_not_written_down() -> None:
    def manhattan(post, pre):
        return (post.unsqueeze(1) - pre.unsqueeze(0)).abs().sum(-1) ** 2

    config = Spatial(2, metric=manhattan, floor=0.0)
    assert config.build(FORWARD).delays().shape == (POST, PRE)
    with pytest.raises(dk.ConfigError, match="register_metric"):
        config.to_json()
    with pytest.raises(dk.ConfigError, match="'euclidean'"):
        register_metric("euclidean", manhattan)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3, 5]), st.sampled_from([0.0, 0.01, 1.0]), st.floats(0.1, 10))
def test_moving_turning_and_scaling_space(seed: int, dims: int, floor: float, factor: float) -> None:
    """Delays depend on distances only; a space twice as large at twice the velocity is the same."""
    delay = build(dims, seed=seed, floor=floor)
    before, places = delay.delays().detach(), (delay.post_positions, delay.pre_positions)
    assert bool((before >= math.sqrt(floor)).all()) and torch.equal(before, delay.delays())
    turn = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64))[0]
    for place in places:
        place.data = place.data @ turn + 3.0
    torch.testing.assert_close(delay.delays(), before)
    scaled = build(dims, seed=seed, floor=floor * factor**2, velocity=factor)
    for place, moved in zip((scaled.post_positions, scaled.pre_positions), places, strict=True):
        place.data = moved.data * factor
    torch.testing.assert_close(scaled.delays(), before)


@pytest.mark.parametrize(
    ("start", "dims", "radii"),
    [("line", 1, None), ("circle", 2, {2.0}), ("two_circles", 3, {1.0, 2.0}), ("grid", 2, None)],
)
def test_starts(start: str, dims: int, radii: set[float] | None) -> None:
    delay = Spatial(dims, pre_init=start, scale=2.0).build(FORWARD, torch.Generator().manual_seed(0))
    places = delay.pre_positions.detach()
    assert len(torch.unique(places, dim=0)) == PRE and float(places.abs().max()) == pytest.approx(2.0)
    if radii is not None:
        assert {round(float(r), 5) for r in places.norm(dim=1)} == radii
    elif start == "line":
        assert places[:, 0].diff().tolist() == pytest.approx([4 / 3] * 3)
    else:
        assert places.tolist() == [[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]


def test_configs_survive_json() -> None:
    for config in (
        Spatial("inf", mean=2.0),
        Spatial(3, pre="input", post="hidden", tortuosity=0.5, init="circle", pre_init=torch.zeros(2, 3)),
        Spatial(0, dt_ms=0.5, estimator="exact"),
    ):
        assert Spatial.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert "Infinity" not in json.dumps(Spatial(math.inf).to_json())


BAD = [
    {"dims": -1}, {"dims": 1.5}, {"dims": math.nan}, {"dims": "two"}, {"dims": True}, {"velocity": 0.0},
    {"velocity": math.inf}, {"floor": -1.0}, {"tortuosity": -0.1}, {"tortuosity": 1.0, "dims": 0}, {"dt_ms": 0.0},
    {"max_ms": -1.0}, {"scale": -1.0}, {"metric": "taxi"}, {"metric": 3}, {"mean": math.nan}, {"init": "spiral"},
    {"init": "grid", "dims": 0}, {"init": "circle", "dims": 1}, {"init": [[0.0]]}, {"init": [[math.nan, 0.0]]},
    {"init": [0.0, 1.0]}, {"init": [[0.0, 1.0], [0.0]]}, {"pre_init": [[0.0]], "dims": math.inf}, {"pre": ""},
    {"post": "=cmd()"}, {"post": "a\nb"}, {"pre": 3}, {"learn": 1}, {"self_connections": "no"},
    {"estimator": "adjoint"},
]  # fmt: skip


@pytest.mark.parametrize("options", BAD, ids=str)
def test_what_is_out_of_range_is_refused_by_name(options: dict) -> None:
    with pytest.raises(dk.ConfigError, match=r"Spatial\.|metric"):
        Spatial(**options)


def test_what_does_not_fit_the_connection_is_refused() -> None:
    with pytest.raises(dk.ShapeError, match=r"shape \(3, 2\)"):
        Spatial(2, init=[[0.0, 0.0]] * 4).build(FORWARD)
    with pytest.raises(dk.ShapeError, match=r"shape \(3, 4\)"):
        Spatial(math.inf, init=[[0.0, 0.0]] * 4).build(FORWARD)
    with pytest.raises(dk.ConfigError, match="one population"):
        Spatial(2, pre="a", post="b").build(LOOP)
    with pytest.raises(dk.ConfigError, match="one start"):
        Spatial(2, init="line", pre_init="circle").build(LOOP)
    with pytest.raises(dk.ShapeError, match="4 -> 3"):
        Spatial(2, pre="a", post="a").build(FORWARD)
    with pytest.raises(dk.ConfigError, match="leave dt_ms out"):
        Spatial(2, dt_ms=0.5).build(Site("fc", 2, 2, dt_ms=1.0))
    assert Spatial(2).build(Site("fc", 2, 2, dt_ms=0.5)).dt_ms == 0.5


@pytest.mark.parametrize("dims", [2, math.inf])
def test_nan_places_are_named(dims: float) -> None:
    delay = build(dims, pre="input", post="hidden")
    (delay.path if dims == math.inf else delay.post_positions).data[0, 0] = math.nan
    with pytest.raises(dk.DelayRangeError, match="fc, paths" if dims == math.inf else "population 'hidden'"):
        delay.check()


def test_half_precision_leaves_positions_alone() -> None:
    delay = build(2, scale=2000.0).float()
    before = delay.post_positions.detach().clone()
    delay.half()
    assert delay.post_positions.dtype == torch.float32 and torch.equal(delay.post_positions, before)
    assert delay.base.dtype == torch.float32


def test_the_floor_is_exact_in_a_float64_model() -> None:
    delay = Spatial(0, floor=0.01, velocity=1.0, dt_ms=1.0).build(Site("fc", 3, 2)).double()
    assert float(delay.delays()[0, 0]) == pytest.approx(0.1, abs=1e-15)
