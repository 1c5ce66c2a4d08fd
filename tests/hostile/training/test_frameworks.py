"""The loops of accelerate and Lightning: parameters after them are those of a net with queues, trained by hand."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import pytest
import torch
from queues import MAKES, PAIRS, Run, assert_agree, frames, loss_of, pair

SEQUENCES = [frames(k, batch=3 + k % 2) for k in range(4)]
EVERY = pytest.mark.parametrize("kind", MAKES)


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Let one rate serve weights and delays."""


def batches(sequences):
    return torch.utils.data.DataLoader(sequences, batch_size=None)


@EVERY
@pytest.mark.parametrize("granularities", PAIRS, ids="-".join)
def test_accelerate_with_gradients_accumulated(kind, granularities):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    net, twin = pair(kind, granularities)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, loader = accelerator.prepare(net.net, net.optimizer, batches(SEQUENCES))
    net.net = model
    for x in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(net(x)))
            optimizer.step()
            optimizer.zero_grad()
    for two in (SEQUENCES[:2], SEQUENCES[2:]):
        for x in two:
            (loss_of(twin(x)) / 2).backward()
        twin.learn()
    assert_agree(Run(kind, accelerator.unwrap_model(model)), twin)


@EVERY
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("granularities", PAIRS, ids="-".join)
def test_lightning_with_validation_in_between(kind, granularities, by_hand, monkeypatch):
    fake = MagicMock()  # its metrics import torchvision, which cannot be beside every build of torch
    fake.__spec__ = ModuleSpec("torchvision", None)
    for name in ("torchvision", "torchvision.models", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, fake)
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    (net, twin), shown = pair(kind, granularities), [frames(50 + k, batch=5, steps=7) for k in range(2)]

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.automatic_optimization, self.seen = net.net, not by_hand, []

        def training_step(self, x, _):
            if not by_hand:
                return loss_of(net(x))
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss_of(net(x)))
            optimizer.step()

        def validation_step(self, x, _):
            self.seen.append(loss_of(net(x)))

        def configure_optimizers(self):
            return net.optimizer

    module = Module()
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=2, num_sanity_val_steps=2, precision="64-true",
    ).fit(module, batches(SEQUENCES), batches(shown))  # fmt: skip
    wanted = []
    for part in ([], SEQUENCES[:2], SEQUENCES[2:]):
        twin.train(part)
        with torch.no_grad():
            wanted += [loss_of(twin(x)) for x in shown]
    torch.testing.assert_close(torch.stack(module.seen), torch.stack(wanted))
    assert_agree(net, twin)
