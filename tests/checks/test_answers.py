"""Answers held to annotations: each kind of answer is told from its neighbours, and whose error it was is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from delaykit.checks.answers import hold_answers_, misfit
from delaykit.errors import ConfigError, PluginError


@dataclasses.dataclass
class Seen:
    name: str
    size: int | None = None
    fields_are_checked: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("kind", "fits", "others"),
    [
        (Tensor | None, [None, torch.zeros(2), torch.zeros(2, device="meta")], [0.0, [torch.zeros(2)], np.zeros(2)]),
        (list[Tensor], [[], [torch.zeros(1)], (torch.zeros(1),)], [None, torch.zeros(1), [0.0], iter([])]),
        (tuple[list[str], str | None], [([], None), (["a"], "b")], [None, [], ([], 1), (["a"],), ([1], None)]),
        (dict[str, Tensor], [{}, {"a": torch.zeros(1)}], [None, [], {"a": 0.5}, {1: torch.zeros(1)}]),
        (tuple[dict[str, Any], str] | None, [None, ({"a": 1}, "a")], [{}, ({}, 1), ([], "a")]),
        (bool, [True], [1, None, torch.tensor(True), np.bool_(True)]),
        (Literal["step", "sequence"], ["step"], ["steps", None, 1]),
        (Callable[[Tensor], Tensor] | None, [None, torch.exp], ["exp"]),
        (float | None, [None, 1, 0.5, np.float32(2)], [True, "1", torch.tensor(1.0)]),
        (type | None, [None, int], [1]),
        (Seen | None, [None, Seen("a"), Seen("a", 3)], ["a", Seen(1), Seen("a", "3"), Seen]),
        (Any, [None, 1], []),
    ],
    ids=lambda given: None if isinstance(given, list) else str(given),  # values may tell where they lie in memory
)
def test_a_kind_of_answer_is_told_from_others(kind: Any, fits: list[Any], others: list[Any]) -> None:
    assert [value for value in fits if misfit(value, kind) is not None] == []
    assert [value for value in others if misfit(value, kind) is None] == []


def test_the_part_that_is_wrong_is_named() -> None:
    assert misfit(([Seen("a", "3")], None), tuple[list[Seen], Seen | None]) == (
        "a Seen with size='3'", "a whole number or None",
    )  # fmt: skip
    assert misfit(Seen(1), Seen | None) == ("a Seen with name=1", "a string")


class Interface:
    name = "mine"

    def __init_subclass__(cls) -> None:
        hold_answers_(cls, Interface)

    def size(self, module: nn.Module) -> int:
        return 0

    def change_(self, module: nn.Module) -> None:
        pass


def answer(function: Any, method: str = "size") -> Any:
    cls = type("Mine", (Interface,), {method: function})
    return getattr(cls(), method)(nn.Linear(1, 1))


def test_what_is_right_comes_through() -> None:
    assert answer(lambda self, module: 3) == answer(staticmethod(lambda module: 3)) == answer(lambda *_: np.int64(3))
    assert answer(classmethod(lambda cls, module: 3)) == 3
    assert answer(lambda self, module: "anything", "change_") == "anything"


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: staticmethod(lambda module: f(None, module))])
def test_what_is_wrong_names_the_method(wrap: Any) -> None:
    expected = r"^adapter 'mine', Mine\.size\(\): found '3' for a Linear; expected a whole number\. To go on"
    with pytest.raises(PluginError, match=expected):
        answer(wrap(lambda self, module: "3"))
    with pytest.raises(PluginError, match=r"Mine\.size\(\): found ZeroDivisionError for a Linear: ") as caught:
        answer(wrap(lambda self, module: 1 // 0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(PluginError, match=r"Mine\.change_\(\): found ZeroDivisionError"):
        answer(wrap(lambda self, module: 1 // 0), "change_")


def test_what_is_no_method_is_the_adapters_fault() -> None:
    with pytest.raises(PluginError, match=r"Mine\.size\(\): found TypeError for a Linear: 'NoneType' object is not c"):
        answer(None)


def test_an_error_of_a_module_and_one_of_delaykit_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        answer(lambda self, module: module(torch.zeros(2, 7)))

    def refuse(self: Any, module: nn.Module) -> int:
        raise ConfigError("here", "this")

    with pytest.raises(ConfigError, match="here: found this"):
        answer(refuse)


def test_a_mixins_method_and_an_inherited_one_are_held_once() -> None:
    class Mixin:
        def size(self, module: nn.Module) -> Any:
            return None

    class First(Mixin, Interface):
        pass

    class Second(First):
        def size(self, module: nn.Module) -> Any:
            return super().size(module)

    class Third(First):
        pass

    assert Third.size is First.size is not Mixin.size
    with pytest.raises(PluginError, match=r"Second\.size\(\): found None for a Linear"):
        Second().size(nn.Linear(1, 1))
