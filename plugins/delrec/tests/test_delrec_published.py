"""Checkpoints of the published implementations, in their own layouts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults import how_many
from delaykit.testing.faults.damage import check_changed_bytes
from delaykit_delrec import DCLS, DelRec, Published, load_published_, read_published


def delrec_state(prefix: str, size: int = 5, synaptic: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (size, size) if synaptic else (size,)
    return {
        f"{prefix}recurrent_weights": torch.randn(size, size, generator=generator),
        f"{prefix}recurrent_delays": torch.rand(shape, generator=generator) * 20,
        f"{prefix}p_spread": torch.randn(size, generator=generator),
    }


def dcls_state(prefix: str, pre: int = 4, post: int = 3, size: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    positions = (torch.rand(1, post, pre, 1, generator=generator) - 0.5) * (size - 1)
    return {
        f"{prefix}weight": torch.randn(post, pre, 1, generator=generator),
        f"{prefix}P": positions,
        f"{prefix}SIG": torch.full_like(positions, 0.23),
        f"{prefix}bias": torch.randn(post, generator=generator),
    }


def wrapped(config, pre: int, post: int) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(pre, post))
    return dk.wrap_(net, {"0": dk.At(config, reset="manual")}, example=torch.ones(1, pre))


@pytest.mark.parametrize("container", ["bare", "nested", "file"])
def test_layers_are_found_by_their_keys(container: str, tmp_path: Path) -> None:
    state = delrec_state("layers.1.rec.") | dcls_state("ff.0.") | {"readout.weight": torch.ones(2, 5)}
    source: object = {"epoch": 3, "model_state_dict": state} if container != "bare" else state
    if container == "file":
        torch.save(source, tmp_path / "best.pt")
        source = tmp_path / "best.pt"
    layers = read_published(source)  # type: ignore[arg-type]
    assert {name: layer.layout for name, layer in layers.items()} == {"layers.1.rec": "delrec", "ff.0": "dcls"}
    assert torch.equal(layers["layers.1.rec"].weight, state["layers.1.rec.recurrent_weights"])
    assert layers["ff.0"].delays.shape == (3, 4) and layers["ff.0"].bias is not None


class Fires:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "fired")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("by", ["torch", "torch of old", "pickle"])
def test_a_pickle_in_a_torch_file_is_never_loaded(tmp_path: Path, by: str) -> None:
    state = delrec_state("") | {"more": Fires(tmp_path / "fired")}
    if by == "pickle":
        (tmp_path / "best.pt").write_bytes(pickle.dumps(state))
    else:
        torch.save(state, tmp_path / "best.pt", _use_new_zipfile_serialization=by == "torch")
    with pytest.raises(dk.CheckpointError, match=r"best.pt"):
        read_published(tmp_path / "best.pt")
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize("flips", [40, pytest.param(how_many(300, 2000), marks=pytest.mark.slow)])
@pytest.mark.parametrize("new", [True, False])
def test_a_changed_byte_of_a_torch_file_is_refused_or_gives_sound_layers(tmp_path: Path, new: bool, flips: int) -> None:
    state = delrec_state("rec.") | dcls_state("ff.")
    torch.save(state, tmp_path / "best.pt", _use_new_zipfile_serialization=new)

    def read(content: bytes) -> dict[str, Published]:
        (tmp_path / "b.pt").write_bytes(content)
        return read_published(tmp_path / "b.pt")

    def judge(layers: dict[str, Published]) -> None:
        assert layers
        for layer in layers.values():
            assert layer.layout in ("delrec", "dcls")
            for values in (layer.weight, layer.delays, layer.spread, layer.bias):
                assert values is None or (values.is_floating_point() and bool(values.isfinite().all()))

    judge(read((tmp_path / "best.pt").read_bytes()))
    refused = check_changed_bytes((tmp_path / "best.pt").read_bytes(), read, judge, flips)
    assert flips < 100 or refused > 0


@pytest.mark.parametrize("synaptic", [False, True])
def test_a_delrec_layer_loads_into_a_recurrent_neuron(synaptic: bool) -> None:
    state = delrec_state("", synaptic=synaptic)
    neuron = snn.RLeaky(beta=0.5, linear_features=5)
    config = DelRec("synaptic" if synaptic else "axonal", learn_spread=True, sigma=10.0)
    zeros = torch.zeros(1, 5)
    dk.wrap_(neuron, {"recurrent": dk.At(config, reset="manual")}, example=lambda: neuron(zeros, zeros, zeros))
    load_published_(neuron.recurrent, read_published(state)[""], sigma=0.0592)
    delay = neuron.recurrent.dk.delay
    assert torch.equal(neuron.recurrent.weight, state["recurrent_weights"])
    assert torch.equal(delay.delay, state["recurrent_delays"]) and float(delay.sigma) == 0.0592
    assert torch.equal(delay.spread_logit, state["p_spread"])


def test_a_dcls_layer_delays_by_half_the_window_minus_its_position() -> None:
    state = dcls_state("")
    net = wrapped(DCLS(7), 4, 3)
    load_published_(net[0], read_published(state)[""])
    delay = net[0].dk.delay
    torch.testing.assert_close(delay.delay, 3 - state["P"][0, ..., 0])
    torch.testing.assert_close(delay.positions(), state["P"][0, ..., 0])
    assert float(delay.sigma) == pytest.approx(0.23) and torch.equal(net[0].bias, state["bias"])


def refused(run, text: str) -> None:
    with pytest.raises(dk.CheckpointError, match=text):
        run()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_is_not_a_published_checkpoint_is_refused(tmp_path: Path) -> None:
    refused(lambda: read_published({"fc.weight": torch.ones(2, 2)}), "recurrent_delays")
    (tmp_path / "text.pt").write_text("no tensors here")
    refused(lambda: read_published(tmp_path / "text.pt"), "text.pt")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(print))
    refused(lambda: read_published(tmp_path / "code.pt"), "code.pt")
    state = delrec_state("")
    refused(lambda: read_published(state | {"recurrent_delays": torch.ones(4)}), r"\(4,\)")
    refused(lambda: read_published(state | {"recurrent_delays": torch.full((5,), float("nan"))}), "NaN")
    refused(lambda: read_published(state | {"p_spread": torch.ones(4)}), "p_spread")
    refused(lambda: read_published(dcls_state("") | {"P": torch.ones(1, 3, 4, 2)}), "no groups")


def test_a_layer_that_does_not_fit_leaves_the_connection_as_it_was() -> None:
    layer = read_published(delrec_state(""))[""]
    refused(lambda: load_published_(nn.Linear(5, 5), layer), "DelRec")
    refused(lambda: load_published_(wrapped(DelRec(), 4, 4)[0], layer), "weight")
    refused(lambda: load_published_(wrapped(DelRec("synaptic"), 5, 5)[0], layer), "granularity")
    refused(lambda: load_published_(wrapped(DelRec(), 5, 5)[0], layer), "learn_spread")
    net = wrapped(DelRec(max_delay=5.0, init=1.0, learn_spread=True), 5, 5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    refused(lambda: load_published_(net[0], layer), "max_delay")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    mixed = dcls_state("")
    mixed["SIG"] = mixed["SIG"] + torch.rand(1, 3, 4, 1)
    refused(lambda: load_published_(wrapped(DCLS(7), 4, 3)[0], read_published(mixed)[""]), "SIG")
