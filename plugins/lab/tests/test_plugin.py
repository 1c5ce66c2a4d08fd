"""The entry module loads nothing heavy, and what it names exists."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click

from delaykit_lab import plugin
from delaykit_lab.task import Task


def test_the_entry_module_imports_no_torch():
    heavy = "'torch', 'h5py', 'matplotlib', 'sklearn', 'scipy', 'tonic', 'sktime', 'snntorch'"
    code = (
        "import sys, click; from delaykit_lab import plugin; list(plugin.delaykit_components());"
        f"plugin.delaykit_commands(click.Group()); sys.exit(sorted({{{heavy}}} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_component_resolves_to_a_task_of_that_name():
    components = list(plugin.delaykit_components())
    from delaykit.names import OFFICIAL

    assert sorted(component.name for component in components) == list(OFFICIAL["lab"][0])
    for component in components:
        module, name = component.config.split(":")
        task = getattr(importlib.import_module(module), name)
        assert issubclass(task, Task) and task.name == component.name and component.kind == "task"


def test_the_commands_are_added():
    group = click.Group()
    plugin.delaykit_commands(group)
    assert list(group.commands) == ["demo", "train", "compare", "question", "reproduce"]


def test_health_finds_the_recordings():
    assert [(name, fine) for name, fine, _ in plugin.delaykit_health()] == [("lab: JapaneseVowels recordings", True)]
