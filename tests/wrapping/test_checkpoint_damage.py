"""Checkpoints of both formats that are truncated, foreign, newer or hostile: refused, and the model is as it was."""

from __future__ import annotations

import pickle
import shutil

import hand
import pytest
import torch

import delaykit as dk
from delaykit.testing.stored_checkpoints import rewrite_checkpoint

pytest.importorskip("snntorch", reason="wraps snntorch models")

from checkpoint_nets import Net, delayed  # noqa: E402
from hand import HIDDEN, PRE  # noqa: E402


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    dk.save(delayed(), folder / "delays")
    return folder


@pytest.fixture
def path(written, tmp_path):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path / "delays"


def site(**values):
    return lambda meta, tensors: meta["sites"][0].update(values)


def without(*keys, which=0):
    return lambda meta, tensors: [meta["sites"][which].pop(key) for key in keys]


def last(**values):
    return lambda meta, tensors: meta["sites"][-1].update(values)


def component(**values):
    return lambda meta, tensors: meta["sites"][0]["components"][0].update(values)


def config(**values):
    return lambda meta, tensors: meta["sites"][0]["components"][0]["config"].update(values)


def plan(**values):
    return lambda meta, tensors: meta.update(values)


def values(new):
    return lambda meta, tensors: tensors.update({k: new(v) for k, v in tensors.items()})


def many(meta, tensors):
    meta["sites"] *= 500


WRONG = {
    "foreign": lambda meta, tensors: meta.pop("writer"),
    "newer format": plan(format=99),
    "format of another type": plan(format="1"),
    "format true": plan(format=True),
    "format zero": plan(format=0),
    "sites no list": plan(sites={"a": 1}),
    "sites empty": plan(sites=[]),
    "sites no dicts": plan(sites=[[1]]),
    "sites missing": lambda meta, tensors: meta.pop("sites"),
    "site again and again": many,
    "aliases missing": lambda meta, tensors: meta.pop("aliases"),
    "aliases no dict": plan(aliases=[1]),
    "alias unknown": plan(aliases={"fc1.dk.delay.delay": "elsewhere"}),
    "alias no string": plan(aliases={"fc1.dk.delay.delay": [1]}),
    "site name no string": site(site=3),
    "site name a pattern": site(site="*"),
    "site unknown": site(site="fc77"),
    "site a path": site(site="../../etc/passwd"),
    "site of 1e6 letters": site(site="x" * 10**6),
    "reset unknown": site(reset="whenever"),
    "reset a list": site(reset=["root"]),
    "reset carried by nobody": site(reset="carried"),
    "loop carried by nobody": last(reset="carried"),
    "time_dim a string": site(time_dim="0"),
    "streams too many": site(streams=10**9),
    "streams a string": site(streams="many"),
    "follows nothing": site(reset="follow", follows=None),
    "follows nobody": site(reset="follow", follows="nobody"),
    "asked a string": site(asked="yes"),
    "component unknown": component(name="quantum"),
    "component a path": component(name="os:system"),
    "component kind a dict": component(kind={}),
    "component no kind": component(kind="adapter", name="torch"),
    "component no dict": site(components=["free"]),
    "config field unknown": config(__class__="os"),
    "config value of another type": config(max_delay=[25]),
    "config value unhashable": config(kernel={"a": 1}),
    "config value NaN": config(max_delay=float("nan")),
    "config init a dict": config(init={"a": 1}),
    "config of a square": config(granularity="synaptic"),
    "recurrent no dict": last(recurrent=3),
    "recurrent size huge": last(pre=10**9),
    "recurrent size large": last(pre=2**24, post=2**24),
    "recurrent size negative": last(pre=-4),
    "recurrent size a string": last(pre="many"),
    "recurrent under another name": last(site="fc1.recurrent"),
    "tensor missing": lambda meta, tensors: tensors.pop(next(iter(tensors))),
    "tensor unknown": lambda meta, tensors: tensors.update({"fc1.weight": torch.zeros(HIDDEN, PRE)}),
    "tensor of another shape": values(lambda v: v.repeat(*[2] * v.ndim, 2)),
    "tensor of integers": values(lambda v: v.long()),
    "tensor NaN": values(lambda v: v * float("nan")),
    "delay negative": values(lambda v: v.abs() * -1 - 1),
    "delay too large": values(lambda v: v + 1e6),
    "memory of a pruning": lambda meta, tensors: tensors.update({"#pruning/0/mask/fc1": torch.zeros(2)}),
    "memory of a pruning of 1e4 digits": lambda meta, tensors: tensors.update(
        {f"#pruning/{'9' * 10**4}/mask/fc1": torch.zeros(2)}
    ),
}
KEYS = ("site", "pre", "post", "neuron", "follows", "components", "reset", "time_dim", "streams")
WRONG |= {f"{key} missing": without(key) for key in KEYS}
WRONG |= {f"component {key} missing": lambda m, t, key=key: m["sites"][0]["components"][0].pop(key)
          for key in ("kind", "name", "config")}  # fmt: skip
WRONG |= {f"{key} {value!r}": site(**{key: value}) for key in KEYS for value in (-1, 1.5, {}, [[]], True)
          if not (key == "time_dim" and value == -1)}  # fmt: skip


WAYS = {"1": (1, False), "2": (2, False), "2-wrapped": (2, True)}
OF_A_BARE_MODEL = (
    "reset carried by nobody",
    "loop carried by nobody",
    "follows nobody",
)  # wrapped, it keeps its timing
CASES = [  # every wrong plan is met at once in one of the three ways, by turns; in all with the slow tests
    pytest.param(wrong, *way, id=f"{wrong}-{name}", marks=pytest.mark.slow if (turn + place) % 3 else ())
    for turn, wrong in enumerate(WRONG)
    for place, (name, way) in enumerate(WAYS.items())
    if not (way[1] and wrong in OF_A_BARE_MODEL)
]


@pytest.mark.parametrize(("wrong", "form", "wrapped"), CASES)
def test_a_wrong_plan_is_refused_and_the_model_is_unchanged(path, wrong, form, wrapped):
    rewrite_checkpoint(path, WRONG[wrong], form)
    refused(path, wrapped)


def refused(path, wrapped):
    net = delayed() if wrapped else Net()
    before = hand.photograph(net)
    with pytest.raises(dk.CheckpointError) as caught:
        dk.load(net, path)
    error = caught.value
    assert "delays" in error.where and error.found and error.expected and error.fix
    assert len(str(error)) < 2000
    after = hand.photograph(net)
    if wrapped:
        hand.same_photograph(before, after)
    else:
        assert before[0] == after[0] and list(before[1]) == list(after[1])


def keep(part):
    return lambda content: content[: int(part * len(content))]


CONTENT = {
    "missing": None,
    "empty": keep(0),
    "truncated": keep(0.6),
    "changed at its end": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "a pickle": lambda content: pickle.dumps(Hostile()),
    "binary": lambda content: b"\xff\xfe\x00\x01",
    "a list": lambda content: b"[]",
    "nested": lambda content: b"[" * 100_000,
    "a header of 2**60 bytes": lambda content: (2**60).to_bytes(8, "little") + content[8:],
    "other JSON": lambda content: b'{"model": "bert"}',
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize(("form", "ending"), [(1, ".json"), (1, ".safetensors"), (2, ".safetensors")])
@pytest.mark.parametrize("damage", CONTENT)
def test_a_damaged_file_is_refused_and_the_model_is_unchanged(path, damage, form, ending, wrapped):
    rewrite_checkpoint(path, lambda meta, tensors: None, form)
    file = path.with_suffix(ending)
    if CONTENT[damage] is None:
        file.unlink()
    else:
        file.write_bytes(CONTENT[damage](file.read_bytes()))
    refused(path, wrapped)


@pytest.mark.parametrize("form", [1, 2])
def test_newer_format_says_so(path, form):
    rewrite_checkpoint(path, plan(format=99), form)
    with pytest.raises(dk.CheckpointError, match="newer delaykit"):
        dk.load(Net(), path)
