"""Readmes that do not keep their word are found, each by its fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from delaykit.testing import check_readme

GOOD = "[all](all.md) [part](all.md#part) [far](https://example.org/none)\n```python\nx = 1\nprint(x)  # 1\n```\n"


def judged(tmp_path: Path, text: str) -> list:
    (tmp_path / "all.md").touch()
    (tmp_path / "README.md").write_text(text)
    return check_readme(tmp_path / "README.md", tmp_path)


def test_what_a_good_one_did_is_handed_back(tmp_path: Path) -> None:
    before = Path.cwd()
    (example,) = judged(tmp_path, GOOD)
    assert (example.names["x"], example.output, Path.cwd()) == (1, "1\n", before)


def test_examples_share_no_names_and_draw_alike(tmp_path: Path) -> None:
    block = "```python\nimport torch\nassert 'y' not in dir()\ny = torch.rand(1).item()\nassert y\n```\n"
    first, second = judged(tmp_path, block * 2)
    assert first.names["y"] == second.names["y"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("words", "no Python block"),
        (GOOD.replace("(all.md)", "(gone.md)"), "gone.md"),
        (GOOD.replace("(all.md#part)", "(gone.md#part)"), "gone.md"),
        (GOOD.replace("print(x)  # 1", "x += 1"), "shows nothing"),
        (GOOD.replace("print(x)  # 1", "assert x\nif x > 1: print(x)"), "shows nothing"),
        (GOOD.replace("# 1", "# 2"), "says that it prints '2'"),
    ],
)
def test_each_fault_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        judged(tmp_path, text)


def test_an_example_that_warns_or_fails_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserWarning, match="old"):
        judged(tmp_path, GOOD.replace("x = 1", "import warnings; warnings.warn('old'); x = 1"))
    with pytest.raises(ZeroDivisionError):
        judged(tmp_path, GOOD.replace("x = 1", "x = 1 / 0"))
