"""README: the example runs as printed and its links lead somewhere; importing loads nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import delaykit_spatial

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_as_printed(capsys) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(block, "README", "exec"), {})
    (promised,) = re.findall(r"print\(parameter_accounting\(net\)\)  # (.*)", block)
    assert promised in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert links and not [link for link in links if not (README.parent / link).exists()]


def test_every_public_name_is_there_and_imported_on_first_use() -> None:
    for name in delaykit_spatial.__all__:
        assert getattr(delaykit_spatial, name) is not None
    code = "import sys, delaykit_spatial, delaykit_spatial.plugin; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
