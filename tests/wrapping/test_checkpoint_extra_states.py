"""What modules keep beside parameters and buffers, torch's ``get_extra_state``, goes along, or is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told


class Counting(nn.Linear):
    """A layer with a state of its own."""

    count = 5

    def get_extra_state(self):
        return torch.tensor(self.count)

    def set_extra_state(self, state):
        if int(state) < 0:
            raise RuntimeError("a negative count")
        self.count = int(state)


def net(layer=Counting):
    return nn.Sequential(nn.Linear(3, 3), layer(3, 3))


def wrapped(bare):
    return dk.wrap_(bare, {"0": dk.At(dk.FreeDelay("axonal", max_delay=4, init=2.0), reset="manual")})


@pytest.mark.parametrize("at", ["0", "1"])
def test_a_tensor_goes_along_with_the_model(tmp_path, at):
    one = dk.wrap_(net(), {at: dk.At(dk.FreeDelay("axonal"), reset="manual")})
    one[1].count = 9
    dk.save(one, tmp_path / "d", with_model=True)
    for other in (net(), dk.wrap_(net(), {at: dk.At(dk.FreeDelay("axonal"), reset="manual")})):
        assert dk.load(other, tmp_path / "d")[1].count == 9


def test_a_shared_module_is_given_its_state(tmp_path):
    layer, other = Counting(3, 3), Counting(3, 3)
    layer.count = 7
    dk.save(wrapped(nn.Sequential(nn.Linear(3, 3), layer, layer)), tmp_path / "d", with_model=True)
    dk.load(nn.Sequential(nn.Linear(3, 3), other, other), tmp_path / "d")
    assert other.count == 7 and torch.equal(other.weight, layer.weight)


def test_without_the_model_it_stays_where_it_is(tmp_path):
    class Table(Counting):
        def get_extra_state(self):
            return {"count": self.count}

    dk.save(wrapped(net(Table)), tmp_path / "d")
    other = net(Table)
    other[1].count = 3
    assert dk.load(other, tmp_path / "d")[1].count == 3
    error = check_told(lambda: dk.save(wrapped(net(Table)), tmp_path / "with", with_model=True))
    assert "dict that 1 keeps" in error.found and not (tmp_path / "with.safetensors").exists()


def test_a_state_that_its_module_refuses_leaves_the_model_as_it_was(tmp_path):
    one = wrapped(net())
    one[1].count = -1
    dk.save(one, tmp_path / "d", with_model=True)
    other = net()
    before = {key: value.clone() for key, value in other.state_dict().items()}
    error = check_told(lambda: dk.load(other, tmp_path / "d"))
    assert "a negative count" in error.found and other[1].count == 5
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in before.items())
    with pytest.raises(dk.ConfigError):
        dk.status(other)  # it is bare again


def test_a_delay_that_is_refused_takes_the_state_back(tmp_path):
    one = wrapped(net())
    one[1].count = 9
    dk.save(one, tmp_path / "d", with_model=True)
    other = nn.Sequential(nn.Linear(3, 3), Counting(3, 2))
    with pytest.raises(dk.CheckpointError, match="shape"):
        dk.load(other, tmp_path / "d")
    assert other[1].count == 5


def test_a_model_without_that_state_is_another_model(tmp_path):
    dk.save(wrapped(net()), tmp_path / "d", with_model=True)
    with pytest.raises(dk.CheckpointError, match=r"unknown \['1._extra_state'\]"):
        dk.load(net(nn.Linear), tmp_path / "d")


def test_an_expanded_parameter_comes_back(tmp_path):
    def net(value):
        bare = nn.Sequential(nn.Linear(3, 3))
        bare[0].bias = nn.Parameter(torch.full((1,), value).expand(3))
        return bare

    dk.save(wrapped(net(2.0)), tmp_path / "d", with_model=True)
    other = net(5.0)
    assert dk.load(other, tmp_path / "d")[0].bias.tolist() == [2.0] * 3 and other[0].bias.stride() == (0,)
    dk.save(wrapped(nn.Sequential(nn.Linear(3, 3))), tmp_path / "each", with_model=True)
    third = net(5.0)
    error = check_told(lambda: dk.load(third, tmp_path / "each"))
    assert "0.bias of different values" in error.found and third[0].bias.tolist() == [5.0] * 3


@pytest.mark.parametrize("name", ["#plan", "#pruning", "#mine"])
def test_names_that_look_like_the_file_s_own_are_kept(tmp_path, name):
    def made(value):
        one = nn.Sequential()
        one.add_module(name, nn.Linear(3, 3))
        one.add_module("last", nn.Linear(3, 3))
        one.last.register_buffer(name, torch.full((1,), value))
        return one

    one = dk.wrap_(made(7.0), {name: dk.At(dk.FreeDelay("axonal"), reset="manual")})
    dk.save(one, tmp_path / "d", with_model=True)
    other = dk.load(made(1.0), tmp_path / "d").state_dict()
    assert all(torch.equal(value, other[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("name", ["#plan", "#pruning/0/x/1"])
def test_a_name_that_the_file_keeps_for_itself_is_refused(tmp_path, name):
    one = net(nn.Linear)
    one.register_buffer(name, torch.ones(1))
    wrapped(one)
    error = check_told(lambda: dk.save(one, tmp_path / "d", with_model=True))
    assert name in error.found and list(tmp_path.iterdir()) == []
    dk.save(one, tmp_path / "d")
    dk.load(net(nn.Linear), tmp_path / "d")
