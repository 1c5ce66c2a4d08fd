"""A comparison is fair (equal budgets, choices on validation, test scored once), and survives interruptions."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

import delaykit as dk
from delaykit_lab import Comparison, compare
from delaykit_lab.commands.compare import compare as command
from delaykit_lab.commands.compare import split_methods
from delaykit_lab.comparison import workers
from delaykit_lab.comparison.budget import search_widths, widest
from delaykit_lab.comparison.findings import factorial, findings, paired
from delaykit_lab.comparison.rows import ROWS, Row
from delaykit_lab.methods import Method
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.training import trainer
from delaykit_lab.training.config import make_task
from delaykit_lab.training.costs import costs, count_parameters
from delaykit_lab.training.trainer import build

SMALL = {"samples": 96, "held": 48}


def small(methods=("none", "frozen-dcls", "dcls"), **options):
    defaults = {"set": SMALL, "model": "snn:8", "seeds": 2, "rates": (0.01, 0.02), "max_delay": 12, "epochs": 2}
    return Comparison("moving-wave", methods, **(defaults | options))


def test_every_row_of_the_table_builds_a_network():
    task = make_task("moving-wave", SMALL)
    splits = task.splits(0)
    for name in [*ROWS, "spatial:2", "free:axonal+sparsify:0.5"]:
        comparison = small((name,), model="rsnn:6")
        [row] = comparison.rows()
        net = build(comparison.job(row, (6,), 0.01, 0), task, splits)
        delays = {site: True for site in dk.status(net).delays} if row.methods else {}
        assert any("recurrent" in site for site in delays) == (row.recurrent != "none" and name != "motifs"), name
        assert any(site.startswith("fc") for site in delays) == (row.forward != "none"), name
        assert (row.neuron is not None) == (name in ("adaptive-neurons", "heterogeneous-taus"))


def test_rows_without_recurrent_connections_keep_their_forward_half():
    row = Row.parse("both", ModelSpec.parse("snn:6"), 12)
    assert row.methods == ("dcls:13",) and (row.recurrent, row.forward) == ("none", "learned")


def test_an_unknown_method_is_told_all_rows_and_all_words_of_with():
    with pytest.raises(dk.UnknownNameError, match="no method 'nosuch'") as told:
        Row.parse("nosuch", ModelSpec.parse("snn:6"), 12)
    for word in (*ROWS, "free", "dynamic_sparsity", "sparsify"):
        assert f"{word}," in str(told.value)
    with pytest.raises(dk.UnknownNameError, match="'froze'; did you mean 'frozen'"):
        Row.parse("froze", ModelSpec.parse("snn:6"), 12)
    with pytest.raises(dk.UnknownNameError, match="--with: found no method 'nosuch'; expected one of .*time_constants"):
        Method.parse("nosuch:axonal")


def test_the_widest_network_within_the_budget():
    for budget in (5, 6, 7, 40, 41, 999):
        width = widest(lambda w: w * w + 4, budget, 4, "here")
        assert width**2 + 4 <= budget < (width + 1) ** 2 + 4
    with pytest.raises(dk.ConfigError, match="one neuron already costs 5"):
        widest(lambda w: w * w + 4, 4, 4, "here")
    with pytest.raises(dk.ConfigError, match="do not use up"):
        widest(lambda w: 1.0, 4, 4, "here")


@pytest.mark.parametrize("equal", ["parameters", pytest.param("synaptic-operations", marks=pytest.mark.slow)])
def test_rows_cost_the_same_to_the_neuron(equal):
    comparison = small(("none", "wider", "dcls", "both"), model="rsnn:8,4", equal=equal)
    task = make_task("moving-wave", SMALL)
    splits = task.splits(0)
    sizes, budget = search_widths(comparison, task, splits)
    assert sizes["none"] == (8, 4)
    spikes = splits.validation.batch(np.arange(48))[0]
    for row in comparison.rows()[1:]:
        width = sizes[row.name][0]
        assert sizes[row.name][1] == max(1, round(width / 2))
        found = []
        for first in (width, width + 1):
            net = build(comparison.job(row, (first, max(1, round(first / 2))), 0.01, 0), task, splits)
            found.append(count_parameters(net) if equal == "parameters" else costs(net, spikes).synaptic_operations)
        assert found[0] <= budget and (equal != "parameters" or found[1] > budget), row.name


def test_intervals_are_student_s_of_paired_differences():
    first, second = [0.90, 0.95, 0.91, 0.97], [0.85, 0.93, 0.90, 0.90]
    found = paired(first, second, samples=10**6)
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found["low"] == pytest.approx(100 * wanted.low) and found["high"] == pytest.approx(100 * wanted.high)
    same = paired([0.5, 0.5], [0.49, 0.49], samples=100)  # no spread over seeds, but a test sample is a point
    assert same["verdict"] == "within" and same["high"] > same["difference"]
    assert paired(second, first, 10**6)["verdict"] == "within"
    assert paired([0.9, 0.91], [0.1, 0.11], 10**4)["verdict"] == "more"


def row(name, recurrent="none", forward="none", accuracy=0.5, methods=(), neuron=None, failed=None):
    run = {"test": accuracy, "test_whole": accuracy, "train": 1.0, "failed": failed}
    return {"name": name, "recurrent": recurrent, "forward": forward, "methods": list(methods), "neuron": neuron,
            "runs": [dict(run), dict(run, test=accuracy + 0.01)], "rate": 0.03,
            "tried": {"0.01": 0.5, "0.03": 0.6, "0.1": 0.4}}  # fmt: skip


def test_a_rate_at_the_edge_of_those_tried_is_told():
    rows = [row("none"), row("wider") | {"rate": 0.1}, row("dcls", forward="learned") | {"rate": 0.01}]
    told = [line for line in findings({"rows": rows, "samples": {"test": 100}})["sentences"] if "rate" in line]
    assert len(told) == 1 and told[0].endswith(": wider (0.1), dcls (0.01).")
    assert not any("rate" in line for line in findings({"rows": rows[:1], "samples": {"test": 100}})["sentences"])
    single = [row("none") | {"rate": 0.03, "tried": {"0.03": 0.6}}]
    assert "no row is tuned" in findings({"rows": single, "samples": {"test": 100}})["sentences"][-1]


def test_learning_is_measured_against_the_same_delays_frozen():
    rows = [row("none"), row("wider"), row("delrec", "learned", methods=["d"], accuracy=0.9),
            row("frozen-delrec", "frozen", methods=["f"], accuracy=0.8), row("dcls", forward="learned", methods=["d"]),
            row("delrec+sparsify:0.5", "learned", methods=["d", "s"], accuracy=0.7),
            row("taus", neuron="heterogeneous"),
            row("bad", "learned", "learned", methods=["a", "b"], failed="NaN")]  # fmt: skip
    found = findings({"rows": rows, "samples": {"test": 1000}})
    pairs = {(d["row"], d["against"]): d["difference"] for d in found["differences"]}
    assert pairs["delrec", "frozen-delrec"] == pytest.approx(10) and pairs["delrec", "none"] == pytest.approx(40)
    assert pairs["delrec+sparsify:0.5", "frozen-delrec"] == pytest.approx(-10)
    assert ("dcls", "frozen-delrec") not in pairs and not any("bad" in pair for pair in pairs)
    assert any("bad: 2 of 2 runs diverged" in line for line in found["sentences"])
    cells = {(cell["recurrent"], cell["forward"]): cell["row"] for cell in factorial(rows)}
    assert cells == {("none", "none"): "none", ("learned", "none"): "delrec", ("frozen", "none"): "frozen-delrec",
                     ("none", "learned"): "dcls"}  # fmt: skip


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_killed_comparison_ends_in_the_same_file(tmp_path):
    whole = compare(small(), tmp_path / "whole")
    for stop in (3, 8, 15):
        told = []

        def tell(line, told=told, stop=stop):
            told.append(line)
            if len(told) == stop:
                raise Killed

        with pytest.raises(Killed):
            compare(small(), tmp_path / "killed", tell=tell, resume=True)
    again = compare(small(), tmp_path / "killed", resume=True)
    read = [(tmp_path / name / "results.json").read_bytes() for name in ("whole", "killed")]
    assert read[0] == read[1] and again == whole == json.loads(read[0])
    for name in ("report.html", "accuracy.png", "costs.png", "timing.json"):
        assert (tmp_path / "whole" / name).stat().st_size > 100
    text = (tmp_path / "whole" / "report.html").read_text()
    for words in ("Recurrent by forward delays", "The test set was scored once a run", "within one number of",
                  "data:image/png;base64", "among 0.01, 0.02", "48 test samples"):  # fmt: skip
        assert words in text
    with pytest.raises(dk.ConfigError, match="pass --resume"):
        compare(small(), tmp_path / "whole")
    with pytest.raises(dk.CheckpointError, match="another comparison .*epochs 2"):
        compare(small(epochs=3), tmp_path / "whole", resume=True)


def test_choices_never_see_the_test_set_which_is_scored_once_a_run(tmp_path, monkeypatch):
    scored, real = [], trainer.Loop.score

    def score(self, frames):
        if frames is self.splits.test:
            scored.append((self.job.model, self.job.seed, len(self.history)))
        return real(self, frames)

    monkeypatch.setattr(trainer.Loop, "score", score)
    results = compare(small(("none", "adaptive-neurons")), tmp_path / "r")
    assert len(scored) == len(set(scored)) == 4 and all(epochs == 2 for _, _, epochs in scored)
    for found in results["rows"]:
        best = max(found["tried"].values())
        assert found["tried"][str(found["rate"])] == best
        assert best == pytest.approx(np.mean([run["validation"] for run in found["runs"]]))  # of the very same runs
    assert not (tmp_path / "r" / "states").exists()


def test_a_training_that_diverges_is_told_and_stops_nothing(tmp_path, monkeypatch):
    real = trainer.train_job

    def diverge(job, **options):
        if "frozen" in str(job.methods):
            raise dk.TrainingError("here", "a loss of nan", "a finite loss")
        return real(job, **options)

    monkeypatch.setattr(trainer, "train_job", diverge)
    results = compare(small(rates=(0.01,)), tmp_path / "r")
    assert any("frozen-dcls: 2 of 2 runs diverged" in line for line in results["findings"]["sentences"])
    assert "diverged" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.slow
def test_a_worker_that_dies_is_a_sentence_and_nothing_is_lost(tmp_path, monkeypatch):
    (tmp_path / "dying_worker.py").write_text("import os\n\ndef die(unit, folder):\n    os._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(workers, "run_unit", __import__("dying_worker").die)
    units = [(small().job(small().rows()[0], (8,), 0.01, seed).to_json(), False) for seed in range(2)]
    with pytest.raises(dk.TrainingError, match="0 of 2 runs are finished.*--resume"):
        workers.run_all(units, tmp_path / "r", workers=2)
    sys.modules.pop("dying_worker", None)


@pytest.mark.slow
@pytest.mark.parametrize("go", [{"workers": 2}, {"backend": "submitit", "cluster": "local"}])
def test_runs_in_other_processes_are_the_same(tmp_path, go):
    if go.get("backend") == "submitit":
        pytest.importorskip("submitit", reason="submitit is not installed")
    comparison = small(("none", "dcls"), rates=(0.01,), epochs=1)
    assert compare(comparison, tmp_path / "other", **go) == compare(comparison, tmp_path / "own")


@pytest.mark.parametrize(("change", "message"), [
    ({"methods": ("none", "frozn")}, "'frozn'; did you mean 'frozen'"),
    ({"methods": ("none", "none")}, "each method once"), ({"methods": ()}, "none at all"),
    ({"equal": "parmeters"}, "did you mean 'parameters'"), ({"seeds": 1}, "no interval"),
    ({"rates": (0.0,)}, "positive learning rates"), ({"options": {"batchsize": 3}}, "did you mean 'batch_size'"),
    ({"options": {"epochs": 3}}, "'epochs'"), ({"max_delay": -1}, "max_delay"), ({"model": "snn"}, "a size"),
    ({"rates": (0.01, 0.003, 0.01)}, "each rate once"), ({"methods": "none"}, r"write \['none'\]"),
    ({"methods": ["adaptive-neurons+heterogeneous-taus"]}, "adaptive and heterogeneous neurons; expected one kind"),
    ({"seeds": "3"}, "seeds: found '3'"), ({"seeds": 2.5}, "a whole number"), ({"seeds": True}, "a whole number"),
    ({"rates": 0.1}, "rates"), ({"rates": ("a",)}, "rates"), ({"budget": "x"}, "budget: found 'x'"),
    ({"options": 3}, "options"), ({"methods": (None,)}, "methods"), ({"equal": 3}, "equal: found 3"),
    ({"max_delay": 2.5}, "max_delay: found 2.5"), ({"set": "x"}, "set"),
])  # fmt: skip
def test_wrong_comparisons(change, message):
    with pytest.raises(dk.DelaykitError, match=message):
        Comparison.from_json({"task": "moving-wave", "methods": ["none"], "model": "snn:8"} | change)


def test_arguments_in_another_order(tmp_path):
    comparison = Comparison("moving-wave", ("none",), model="snn:8")
    for wrong in (("moving-wave", tmp_path), (tmp_path, comparison), (comparison, None)):
        with pytest.raises(dk.ConfigError, match="in this order"):
            compare(*wrong)
    with pytest.raises(dk.ConfigError, match="cluster: found 'nowhere'"):
        workers.run_all([], tmp_path, backend="submitit", cluster="nowhere")


def test_the_command_says_what_is_wrong(tmp_path):
    words = ["--task", "moving-wave", "--model", "snn:8", "--out", str(tmp_path / "r")]
    words += ["--set", "samples=96", "--set", "held=48"]
    done = CliRunner().invoke(command, [*words, "--methods", "none,dcls", "--budget", "20"])
    assert done.exit_code == 1 and "where one neuron already costs" in done.output and "larger --budget" in done.output
    done = CliRunner().invoke(command, [*words, "--methods", "none,dlcs"])
    assert done.exit_code == 1 and "did you mean 'dcls'" in done.output
    done = CliRunner().invoke(command, [*words, "--rates", "fast", "--methods", "none"])
    assert done.exit_code == 1 and "e.g. --rates" in done.output
    for wrong, sentence in ((["--task", "moving-wav"], "did you mean 'moving-wave'"),
                            (["--set", "smples=3"], "did you mean 'samples'"),
                            (["--equal", "tim"], "did you mean 'time'"),
                            (["--option", "batchsize=3"], "did you mean 'batch_size'"), (["--rates", ""], "numbers"),
                            (["--budget", "1e12"], "do not use up")):  # fmt: skip
        done = CliRunner().invoke(command, [*words, "--methods", "wider", *wrong])
        assert done.exit_code == 1 and sentence in done.output and "searching" not in done.output, wrong
    assert split_methods("none, free:axonal,max_delay=9 ,spatial:2") == ["none", "free:axonal,max_delay=9", "spatial:2"]
