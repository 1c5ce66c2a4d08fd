"""Sphinx configuration: pages are MyST markdown, tutorials are executed notebooks shown as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import delaykit

sys.path.insert(0, str(Path(__file__).parent))
import fields  # noqa: E402
import outside  # noqa: E402
import pages  # noqa: E402

pages.copy_tutorials()
pages.copy_readmes()

project = "delaykit"
author = "The delaykit developers"
copyright = "The delaykit developers"
version = release = delaykit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "mathml",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
intersphinx_mapping = outside.mapping(Path(__file__).parent / "_build" / "inventories")
myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # a README may begin below a heading of its own

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch's own have labels that are not here
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = "delaykit"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def show_tables_as_written(app, what, name, obj, options, lines):
    """Docstrings draw tables for the terminal, ``| a | b |``, which reStructuredText would take for something else."""
    shown, printed = [], False
    for line in lines:
        printed = line.startswith(">>>") or (printed and bool(line.strip()))  # what an example prints is shown as it is
        if line.startswith("|") and not printed:
            if not (shown and shown[-1].startswith("   |")):
                shown += ["::", ""]
            line = "   " + line
        elif shown and shown[-1].startswith("   |"):
            shown.append("")
        shown.append(line)
    lines[:] = shown


def point_to_copies(app, docname, source):
    if not docname.startswith(("plugins/", "tutorials/")):
        source[0] = pages.pointed(source[0], (Path(__file__).parent / docname).parent)


def setup(app):
    app.connect("source-read", point_to_copies)
    app.connect("autodoc-process-docstring", show_tables_as_written)
    app.connect("autodoc-process-signature", fields.show)
