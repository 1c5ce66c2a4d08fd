"""Exporters of a step-mode net: refused with a sentence, not a file with wrong values."""

from __future__ import annotations

import pytest
import torch
from rigs import late, leaky, looped, ones, outer, spikes

import delaykit as dk

WAYS = "fused|way out|dk.unwrap_|export"


@pytest.mark.parametrize("net", [looped, outer])
def test_jit_trace(net):
    net = net(2)
    x = spikes(4, 1, batch=2) if hasattr(net, "fc") else spikes(4, 1, batch=2)[0]
    with pytest.raises(dk.DelaykitError, match=WAYS):
        torch.jit.trace(net, (x,), check_trace=False)


def test_jit_script():
    """The model, a part of it, and a model around it; an unwrapped one is torch's own affair again."""
    net = torch.nn.Sequential(ones(), leaky(init_hidden=True))
    before = [type(module) for module in net.modules()]
    dk.wrap_(net, {"0": late(2.0)}, example=torch.zeros(1, 1))
    for module in (net, net[0], torch.nn.Sequential(net)):
        with pytest.raises(dk.ConfigError, match=r"torch.jit.script.*unwrap_"):
            torch.jit.script(module)
    dk.unwrap_(net)
    assert [type(module) for module in net.modules()] == before
    torch.jit.script(net[0])


@pytest.mark.parametrize("net", [looped, outer])
@pytest.mark.parametrize("strict", [True, False])
def test_torch_export(net, strict):
    net = net(2)
    x = spikes(4, 1, batch=2) if hasattr(net, "fc") else spikes(4, 1, batch=2)[0]
    with pytest.raises(Exception) as caught:
        torch.export.export(net, (x,), strict=strict)
    chain, error = [], caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert any(isinstance(e, dk.DelaykitError) for e in chain) or any("delaykit" in str(e) for e in chain), chain


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_export(dynamo, tmp_path):
    if dynamo:  # the older exporter meets the refusal before it asks for its own package
        pytest.importorskip("onnxscript", reason="needs an ONNX exporter")
    net = outer(2)
    with pytest.raises(Exception) as caught:
        torch.onnx.export(net, (spikes(1, 0, batch=2)[0],), str(tmp_path / "net.onnx"), dynamo=dynamo)
    chain, error = [], caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert any("delaykit" in str(e) or isinstance(e, dk.DelaykitError) for e in chain), chain


def test_snntorch_export_to_nir():
    pytest.importorskip("nir", reason="needs NIR, the extra `nir`")
    export = pytest.importorskip("snntorch.export_nir", reason="needs snnTorch, the extra `snntorch`")
    net = outer(2)
    with pytest.raises(dk.DelaykitError, match="NIR|nir|Delay"):
        export.export_to_nir(net, torch.zeros(1, 1))


def test_norse_to_nir():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    pytest.importorskip("nir", reason="needs NIR, the extra `nir`")
    pytest.importorskip("nirtorch", reason="needs NIR, the extra `nir`")
    to_nir = pytest.importorskip("norse.torch.utils.export_nir", reason="needs Norse, the extra `norse`").to_nir
    from rigs import late, ones

    net = norse.SequentialState(ones(), norse.LIFBoxCell())
    dk.wrap_(net, {"0": late(2)}, example=lambda: [net(torch.zeros(1, 1), None), None])
    with pytest.raises(dk.DelaykitError, match="NIR|nir|Delay"):
        to_nir(net, torch.zeros(1, 1))


def test_a_bare_model_can_be_exported_again():
    net = dk.unwrap_(outer(2))
    torch.jit.trace(net, (torch.zeros(2, 1),), check_trace=False)
