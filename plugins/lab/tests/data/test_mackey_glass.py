"""The Mackey-Glass series against its equation and against known facts."""

from __future__ import annotations

import pytest
import torch

from delaykit import ConfigError
from delaykit_lab.data import mackey_glass as module
from delaykit_lab.data.mackey_glass import mackey_glass


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_draws_the_same_series_and_another_another() -> None:
    assert torch.equal(mackey_glass(50, generator=seeded()), mackey_glass(50, generator=seeded()))
    assert not torch.equal(mackey_glass(50, generator=seeded()), mackey_glass(50, generator=seeded(1)))


@pytest.mark.parametrize("tau", [17.0, 17.03])
def test_finer_steps_change_nothing(tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda n, **options: torch.full((n,), 0.5, dtype=torch.float64))
    coarse = mackey_glass(60, tau, transient=0)
    monkeypatch.setattr(module, "STEPS_A_UNIT", 80)
    torch.testing.assert_close(coarse, mackey_glass(60, tau, transient=0), rtol=0, atol=2e-4)


def test_samples_obey_the_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS_A_UNIT", 1)
    x = mackey_glass(200, transient=0, generator=seeded())
    now, ago = x[20:-1], x[3:-18]  # 17 steps back
    slope = 0.2 * ago / (1 + ago**10) - 0.1 * now
    assert float((x[21:] - now - slope).abs().max()) < 0.02  # one Euler step of a series that moves by up to 0.1


def test_a_delay_of_17_gives_the_known_range_and_no_rest() -> None:
    x = mackey_glass(1000, generator=seeded())
    assert 0.38 < float(x.min()) < 0.48 and 1.25 < float(x.max()) < 1.36 and 0.2 < float(x.std()) < 0.25
    rest = mackey_glass(300, tau=1.0, transient=1000, generator=seeded())
    assert float(rest.std()) < 1e-6 and float(rest[-1]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("options", [{"length": 0}, {"length": 5, "tau": 0.5}, {"length": 5, "tau": float("nan")}])
def test_bad_numbers_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        mackey_glass(**options)
