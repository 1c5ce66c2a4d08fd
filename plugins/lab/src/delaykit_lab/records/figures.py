"""Where each figure of a paper is: the experiment that draws it, its command, and its picture where it has run.

``results/figures.json`` lists them::

    [{"paper": "timing", "figure": "4", "what": "spikes a neuron over tau", "experiment": "mnist_tau",
      "picture": "accuracy.png"}]

An experiment is named without ``_full``: the picture of the full one is shown where there is one, else that of the
reduction.
"""

from __future__ import annotations

from pathlib import Path

from delaykit import DataError
from delaykit_lab.records.experiments import Experiment, experiments
from delaykit_lab.records.files import read_json
from delaykit_lab.records.tables import markdown

LIST = Path("results") / "figures.json"
HEAD = ["paper", "figure", "what it shows", "picture", "command"]


def figures(source: Path) -> str:
    """Write the table of all figures; links are those of a page in ``results/``.

    Raises:
        DataError: a figure names an experiment that is not listed.
    """
    listed = read_json(source / LIST, list) if (source / LIST).exists() else []
    known = {(one.paper, one.name): one for scale in ("cpu", "full") for one in experiments(source, scale)}
    rows = []
    for figure in listed:
        names = [figure["experiment"] + end for end in ("_full", "")]
        of = [known[figure["paper"], name] for name in names if (figure["paper"], name) in known]
        if not of:
            found = f"no experiment {figure['paper']}/{figure['experiment']}"
            raise DataError(str(LIST), found, "one of results/experiments.json", "mend its name")
        drawn = [one for one in of if (one.folder(source) / figure["picture"]).is_file()]
        shown = _link(drawn[0], figure["picture"]) if drawn else "not run"
        rows.append([figure["paper"], figure["figure"], figure["what"], shown, f"`{(drawn or of[::-1])[0].command()}`"])
    return markdown(HEAD, rows)


def _link(one: Experiment, picture: str) -> str:
    return f"[{one.name}]({one.paper}/{one.name}/{picture})"
