"""README: the examples run as printed and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import torch

import delaykit as dk

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run_as_printed() -> None:
    torch.manual_seed(0)
    first, second = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(first, "README", "exec"), names := {})
    assert "spread 0.059" in str(names["net"])
    exec(compile(second, "README", "exec"), names)
    for name, (model, rules) in names["models"].items():
        delays = [module for module in model.modules() if isinstance(module, dk.PointDelay)]
        assert len(delays) == len(rules), name


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert links and not [link for link in links if not (README.parent / link).exists()]
