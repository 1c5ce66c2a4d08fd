"""Sphinx configuration: pages are MyST markdown, tutorials are executed notebooks shown as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import delaykit

# Sphinx reads below its own folder only: the notebooks are copied in, and git ignores the copies.
for notebook in Path(__file__).parent.parent.glob("tutorials/*.ipynb"):
    target = Path(__file__).parent / "tutorials" / notebook.name
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(notebook, target)

project = "delaykit"
author = "The delaykit developers"
copyright = "The delaykit developers"
version = release = delaykit.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"
exclude_patterns = ["_build"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch's own have labels that are not here
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "alabaster"
html_theme_options = {"description": "Time in the synapses of existing spiking networks", "page_width": "1080px"}


def show_tables_as_written(app, what, name, obj, options, lines):
    """Docstrings draw tables for the terminal, ``| a | b |``, which reStructuredText would take for something else."""
    shown = []
    for line in lines:
        if line.startswith("|"):
            if not (shown and shown[-1].startswith("   |")):
                shown += ["::", ""]
            line = "   " + line
        elif shown and shown[-1].startswith("   |"):
            shown.append("")
        shown.append(line)
    lines[:] = shown


def setup(app):
    app.connect("autodoc-process-docstring", show_tables_as_written)
