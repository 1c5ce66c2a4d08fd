"""Experiments are run gently and once; READMEs' tables come from records, and are those of this checkout."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from delaykit import CheckpointError, DataError
from delaykit_lab import record_path, remembered
from delaykit_lab.commands.demo import reproduce
from delaykit_lab.records import benchmarks, budget, experiments, figures, page, published
from delaykit_lab.records.answers import PAGE, answers

ROOT = Path(__file__).parents[3]
ONE = {"paper": "delrec", "name": "speech", "script": "go.py", "data": None, "what": "learned against frozen"}
ONE |= {"cpu": {"options": "--seeds 1", "cpu_hours": 0.5}, "full": {"options": "--full", "cpu_hours": 9}}
MARKS = f"# A\n\n{published.BEGIN}\nold\n{published.END}\n\nend\n"
SCRIPT = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
(out / "a.json").write_text(json.dumps({"argv": sys.argv[1:]}))
"""


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A small checkout: one experiment, and one that needs images."""
    (tmp_path / "results" / "delrec" / "speech").mkdir(parents=True)
    images = {**ONE, "paper": "timing", "name": "mnist", "data": "mnist"}
    (tmp_path / "results" / "experiments.json").write_text(json.dumps([ONE, images]))
    (tmp_path / "results" / "README.md").write_text(MARKS)
    (tmp_path / "go.py").write_text(SCRIPT)
    (tmp_path / "PAPER.md").write_text(MARKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(source: Path, name: str, variant: str, seed: int, test: float) -> None:
    values = {"settings": {"variant": variant, "seed": seed, "plan": {"epochs": 3}}, "result": {"test": test}}
    path = source / "results" / "delrec" / "speech" / f"{name}.json"
    path.write_text(json.dumps({**values, "cpu_s": 360.0}))


def describe(source: Path, *rows: dict) -> None:
    table = {
        "title": "Speech", "experiment": "speech", "unit": "test accuracy, %", "protocol": "reduced.",
        "why": "smaller.",
        "columns": [{"name": "test (%)", "key": "test", "scale": 100}], "rows": list(rows),
        "where": {"plan.epochs": 3}, "pictures": ["one.png", "two.png"],
    }  # fmt: skip
    for name in table["pictures"]:
        (source / "results" / "delrec" / "speech" / name).touch()
    settings = {"readme": "PAPER.md", "tables": [table]}
    (source / "results" / "delrec" / "tables.json").write_text(json.dumps(settings))


def test_an_experiment_runs_with_its_options_and_its_own_folder(source) -> None:
    ran = CliRunner().invoke(reproduce, ["delrec", "--scale", "full"])
    assert ran.exit_code == 0 and "speech_full: done" in ran.output
    argv = json.loads((source / "results" / "delrec" / "speech_full" / "a.json").read_text())["argv"]
    assert argv == ["--full", "--out", str(source / "results" / "delrec" / "speech_full")]


def test_without_data_it_says_what_it_needs_and_fails_if_it_was_asked_for(source) -> None:
    named = CliRunner().invoke(reproduce, ["timing"])
    assert named.exit_code == 1 and "mnist: not run: needs a folder with MNIST's four idx files" in named.output
    everything = CliRunner().invoke(reproduce, [])
    assert everything.exit_code == 0 and "speech: done" in everything.output and "not run: needs" in everything.output
    (source / "data" / "mnist").mkdir(parents=True)
    (source / "data" / "mnist" / "train-images-idx3-ubyte.gz").touch()
    given = CliRunner().invoke(reproduce, ["timing", "--data", str(source / "data"), "--out", str(source / "there")])
    assert given.exit_code == 0
    argv = json.loads((source / "there" / "timing" / "mnist" / "a.json").read_text())["argv"]
    assert argv[-2:] == ["--data", str(source / "data" / "mnist")]


@pytest.mark.parametrize(("kind", "splits"), [("shd", ["train", "test"]), ("ssc", ["train", "valid", "test"])])
def test_published_recordings_are_looked_for_by_their_names(tmp_path, kind, splits) -> None:
    (tmp_path / kind.upper()).mkdir()
    for split in splits:
        assert experiments.data_for(kind, tmp_path) is None
        (tmp_path / kind.upper() / f"{kind}_{split}.h5").touch()
    assert experiments.data_for(kind, tmp_path) == tmp_path


def test_a_script_that_fails_is_a_failure(source) -> None:
    (source / "go.py").write_text("raise SystemExit(3)")
    ran = CliRunner().invoke(reproduce, [])
    assert ran.exit_code == 1 and "speech: failed (3)" in ran.output


def test_scripts_run_at_low_priority(source) -> None:
    called = []
    (one, _) = experiments.experiments(source, "cpu")
    assert experiments.run(one, source, None, call=lambda words: called.append(words) or 0) == "done"
    assert called[0][:3] == ["nice", "-n", "10"] and called[0][4:6] == [str(source / "go.py"), "--seeds"]


def test_the_list_and_an_unknown_name(source) -> None:
    listed = CliRunner().invoke(reproduce, ["--list"])
    assert listed.exit_code == 0 and "0.5 CPU h  learned against frozen" in listed.output
    unknown = CliRunner().invoke(reproduce, ["delrec", "--only", "nothing"])
    assert unknown.exit_code == 2 and "no such experiment at scale cpu" in unknown.output


def test_a_full_experiment_is_found_by_its_name_with_and_without_its_ending(source) -> None:
    name = ONE["name"]
    for only in (name, f"{name}_full"):
        (one,) = experiments.chosen(source, "full", ONE["paper"], only)
        assert one.name == f"{name}_full"
    with pytest.raises(DataError, match="--scale full"):
        experiments.chosen(source, "cpu", None, f"{name}_full")


def test_recordings_that_are_nearly_there_are_named(source, tmp_path) -> None:
    (one, _) = experiments.experiments(source, "cpu")
    one = dataclasses.replace(one, data="speech")
    (tmp_path / "tiny_train.h5").touch()
    (tmp_path / "all_train.h5.xz").write_bytes(b"packed")
    assert "all_train.h5.xz that is still packed" in experiments.run(one, source, tmp_path)


def test_outside_a_checkout_is_an_error(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(reproduce, ["delrec"])
    assert ran.exit_code == 1 and "wheels hold no scripts" in ran.output


def test_a_table_has_means_errors_seeds_and_the_papers_number(source) -> None:
    for seed, test in enumerate((0.70, 0.74)):
        record(source, f"learned_{seed}", "learned delays", seed, test)
    record(source, "frozen_0", "frozen", 0, 0.65)
    describe(
        source, {"name": "learned", "where": {"variant": "learned delays"}, "paper": "93.4"},
        {"name": "frozen", "where": {"variant": "frozen"}},
    )  # fmt: skip
    changed = published.update(source)
    assert {path.name for path in changed} == {"PAPER.md", "README.md"}
    text = (source / "PAPER.md").read_text()
    assert "| learned | 72.0 ± 2.0 | 2 | 93.4 |" in text and "| frozen | 65.0 | 1 | - |" in text
    assert "old" not in text and text.startswith("# A\n") and text.endswith("\n\nend\n")
    assert "[delrec/speech](results/delrec/speech)" in text
    assert "![Speech](results/delrec/speech/one.png)\n\n![Speech](results/delrec/speech/two.png)" in text
    summary = (source / "results" / "README.md").read_text()
    assert "| delrec | speech: learned against frozen | 3 | 0.30 | 0.5 |" in summary
    assert "| timing | mnist: learned against frozen | not run | - | 0.5 |" in summary
    assert published.update(source) == []


def test_learned_against_frozen_is_told_seed_by_seed(source) -> None:
    """Pairs of one seed; a seed that has one side only does not count, and a pair without records has no row."""
    for seed, frozen, learned in ((0, 0.70, 0.75), (1, 0.60, 0.67), (3, 0.60, 0.66)):
        record(source, f"frozen_{seed}", "frozen", seed, frozen)
        record(source, f"learned_{seed}", "learned", seed, learned)
    record(source, "learned_2", "learned", 2, 0.1)
    sides = {"frozen": {"variant": "frozen"}, "learned": {"variant": "learned"}}
    pair = {"paper": "delrec", "experiment": "speech", **sides}
    pairs = [
        {**pair, "name": "delays"}, {**pair, "name": "errors", "lower": True},
        {**pair, "name": "of", "each": "plan.epochs"}, {**pair, "name": "nothing", "experiment": "no_such"},
    ]  # fmt: skip
    (source / "results" / "pairs.json").write_text(json.dumps(pairs))
    lines = page.learned_against_frozen(source).splitlines()[2:]
    cells, again = "[delrec/speech](delrec/speech) | 3 | - |", "(the runs of *delays* again)"
    assert lines == [
        f"| delays | {cells} +6.0 ± 0.6 | learning helps |",
        f"| errors {again} | {cells} -6.0 ± 0.6 | freezing is better |",
        f"| of: 3 {again} | {cells} +6.0 ± 0.6 | learning helps |",
    ]
    describe(source, {"name": "learned", "where": {"variant": "frozen"}})
    published.update(source)
    text = (source / "results" / "README.md").read_text()
    assert "## Learned against frozen" in text and lines[0] in text and "[delrec/speech](delrec/speech)." in text
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")][1:]
    assert "**Speech**" in text
    assert headings == ["delrec", "Where each figure is", "What is left", "Every experiment"]


def order(source: Path, *entries: dict) -> None:
    (source / "results" / "order.json").write_text(json.dumps({"cpu_hours": 40, "order": entries}))


def test_what_is_left_comes_in_its_order_and_nothing_is_forgotten(source) -> None:
    full = {"paper": "timing", "experiment": "mnist_full", "turn": "1"}
    order(source, full)
    lines = budget.what_is_left(source).splitlines()[2:]
    assert lines == [
        "| 1 | timing | mnist_full | all of it | 9 |", "| later | delrec | speech | all of it | 0.5 |",
        "| later | timing | mnist | all of it | 0.5 |", "| later | delrec | speech_full | all of it | 9 |",
    ]  # fmt: skip
    record(source, "a", "learned delays", 0, 0.5)
    assert "| delrec | speech |" not in budget.what_is_left(source)
    speech = {"paper": "delrec", "experiment": "speech", "turn": "2"}
    order(source, full, {**speech, "missing": "two seeds", "cpu_hours": 0.25})
    assert budget.what_is_left(source).splitlines()[3] == "| 2 | delrec | speech | two seeds | 0.25 |"
    for wrong in (speech, {**full, "missing": "two seeds"}, {**full, "experiment": "no_such"}):
        order(source, wrong)
        with pytest.raises(DataError, match=wrong["experiment"]):
            budget.what_is_left(source)


def test_what_was_spent_is_the_sum_of_all_records(source) -> None:
    order(source)
    record(source, "a", "learned delays", 0, 0.5)
    (source / "results" / "delrec" / "speech" / "tuning").mkdir()
    (source / "results" / "delrec" / "speech" / "tuning" / "b.json").write_text('{"cpu_s": 1080}')
    (source / "results" / "timing").mkdir()
    (source / "results" / "timing" / "c.json").write_text('{"cpu_s": 7200}')
    assert budget.spent(source) == {"delrec": pytest.approx(0.4), "timing": 2.0}
    said = "All records here took 2.4 of about 40 CPU hours (delrec 0.40, timing 2.00)."
    assert budget.spent_text(source) == said
    assert said in CliRunner().invoke(reproduce, ["--list"]).output


def test_a_figure_is_where_its_experiment_drew_it(source) -> None:
    figure = {"paper": "delrec", "figure": "4", "what": "points", "experiment": "speech", "picture": "one.png"}
    listed = source / "results" / "figures.json"
    listed.write_text(json.dumps([figure]))
    head = "| delrec | 4 | points |"
    assert f"{head} not run | `delaykit reproduce delrec --only speech --scale cpu` |" in figures.figures(source)
    (source / "results" / "delrec" / "speech" / "one.png").touch()
    assert f"{head} [speech](delrec/speech/one.png) |" in figures.figures(source)
    (source / "results" / "delrec" / "speech_full").mkdir()
    (source / "results" / "delrec" / "speech_full" / "one.png").touch()
    row = f"{head} [speech_full](delrec/speech_full/one.png) | `delaykit reproduce delrec --only speech_full --scale"
    assert f"{row} full` |" in figures.figures(source)
    listed.write_text(json.dumps([{**figure, "experiment": "no_such"}]))
    with pytest.raises(DataError, match="delrec/no_such"):
        figures.figures(source)


def test_a_row_without_a_record_or_with_two_of_a_seed_is_an_error(source) -> None:
    describe(source, {"name": "learned", "where": {"variant": "learned delays"}})
    with pytest.raises(DataError, match="'learned'.*0 records"):
        published.update(source)
    record(source, "a", "learned delays", 0, 0.5)
    record(source, "b", "learned delays", 0, 0.6)
    with pytest.raises(DataError, match="2 records of 1 seeds"):
        published.update(source)


@pytest.mark.parametrize("text", ["nothing", f"{published.END}\n{published.BEGIN}", published.BEGIN])
def test_a_readme_without_a_place_is_an_error(text) -> None:
    with pytest.raises(DataError, match="README"):
        published.replaced(text, "new", "README.md")


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
def test_the_page_of_questions_is_what_the_records_give() -> None:
    text = (ROOT / PAGE).read_text()
    assert published.replaced(text, answers(ROOT), str(PAGE)) == text
    assert [line[4:6] for line in text.splitlines() if line.startswith("### Q")] == [f"Q{n}" for n in range(1, 7)]


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
def test_this_checkouts_tables_are_those_of_its_records() -> None:
    for path in (ROOT / "results").glob("*/tables.json"):
        readme = ROOT / json.loads(path.read_text())["readme"]
        text = readme.read_text()
        assert published.replaced(text, published.tables(ROOT, path.parent.name), str(readme)) == text, readme
    summary = (ROOT / "results" / "README.md").read_text()
    assert published.replaced(summary, published.results(ROOT), "results/README.md") == summary, "make tables"
    measured = (ROOT / benchmarks.PAGE).read_text()
    assert published.replaced(measured, benchmarks.benchmarks(ROOT), "benchmarks/README.md") == measured, "make tables"


def test_a_benchmarks_table_is_its_record(source) -> None:
    folder = source / benchmarks.RECORDS
    folder.mkdir()
    (folder / "peers.json").write_text(json.dumps({"result": {"runs": []}}))
    rows = [{"case": "bare", "CPU ms": 123.4, "x bare": 1.0}, {"case": "ours", "CPU ms": 0.456, "x bare": 0.5, "n": 3}]
    settings = {"script": "bench_a.py", "about": "What.", "machine": "x86", "load": 0.96, "max_delay": 9, "of": [1, 2]}
    made = {"versions": {"torch": "2"}, "commit": "0123456789", "cpu_s": 1.0}
    (folder / "a.json").write_text(json.dumps({"settings": settings, "result": {"tables": {"t": rows}}, **made}))
    (source / "benchmarks").mkdir()
    (source / benchmarks.PAGE).write_text(MARKS)
    assert source / benchmarks.PAGE in published.update(source)
    lines = (source / benchmarks.PAGE).read_text().splitlines()
    assert lines[3:-3] == [
        "### `bench_a.py`", "", "What.", "", "| t | CPU ms | x bare | n |", "|---|---|---|---|",
        "| bare | 123 | 1.00 | - |", "| ours | 0.46 | 0.50 | 3 |", "",
        "*max delay 9, of 1 2; x86 at a load of 1.0, torch 2, commit 0123456: [record](../results/benchmarks/a.json).*",
    ]  # fmt: skip


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
def test_every_experiment_names_a_script_and_options_that_it_understands() -> None:
    for scale in ("cpu", "full"):
        for one in experiments.experiments(ROOT, scale):
            text = (ROOT / one.script).read_text()
            own = {word for word in one.options if word.startswith("--")} - {"--seeds", "--full", "--epochs"}
            assert all(f'"{word}"' in text for word in own), one
            assert one.data in (None, *experiments.NEEDS) and one.cpu_hours > 0


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
def test_every_picture_of_a_table_is_there() -> None:
    there = {path.relative_to(ROOT / "results").parts for path in (ROOT / "results").glob("*/*/*.png")}
    for path in (ROOT / "results").glob("*/tables.json"):
        for table in json.loads(path.read_text())["tables"]:
            names = table.get("pictures", [table["picture"]] if "picture" in table else [])
            assert {(path.parent.name, table["experiment"], name) for name in names} <= there, table["title"]


FIGURES = {
    "spatial": "2D 2E 3D 3E 4A 4B 4C 4D 4E 4F S2 S4 S5", "motifs": "training noise capacity",
    "hetsyn": "2D 4A 4C 4D 4F A3 A4", "timing": "3 4 5",
}  # fmt: skip


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
@pytest.mark.parametrize("paper", FIGURES)
def test_every_figure_that_can_be_drawn_has_an_experiment(paper) -> None:
    listed = json.loads((ROOT / figures.LIST).read_text())
    drawn = {name for one in listed if one["paper"] == paper for name in one["figure"].split(", ")}
    assert set(FIGURES[paper].split()) <= drawn


NUMBER = r"(?<![\d.])(\d*\.\d+)(?![\d.])"
MEASURED = re.compile(rf"{NUMBER}(?: ± {NUMBER})?(?=\s(?:±|%|points))|{NUMBER}\s±\s{NUMBER}|F1\s{NUMBER}")


def prose(path: Path) -> str:
    """Return a page without what is written from records, and without its code."""
    text = path.read_text()
    head, _, rest = text.partition(published.BEGIN)
    return re.sub(r"```.*?```", "", head + rest.partition(published.END)[2], flags=re.S)


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
def test_numbers_in_the_words_of_a_readme_are_those_of_its_tables() -> None:
    """Nothing without a record: what is measured, with decimals, stands in a table that is written from records."""
    written = {with_zero(number) for number in re.findall(NUMBER, published.results(ROOT))}
    for path in (ROOT / "results").glob("*/*/tuning/*.json"):
        written.add(f"{100 * json.loads(path.read_text())['result']['validation']:.1f}")
    readmes = {ROOT / json.loads(path.read_text())["readme"] for path in (ROOT / "results").glob("*/tables.json")}
    for readme in sorted({*readmes, ROOT / "README.md", ROOT / "results" / "README.md"}):
        said = {with_zero(number) for found in MEASURED.finditer(prose(readme)) for number in found.groups() if number}
        assert said <= written, (readme, said - written)


def with_zero(number: str) -> str:
    """Write .81 as 0.81."""
    return f"0{number}" if number.startswith(".") else number


def test_a_record_that_was_changed_by_hand_gets_into_no_table(tmp_path) -> None:
    path = record_path(tmp_path, {"seed": 0}, "a")
    remembered(path, {"seed": 0}, lambda: {"test": 0.5})
    assert [one["result"]["test"] for one in experiments.records(tmp_path)] == [0.5]
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(CheckpointError, match="digest"):
        experiments.records(tmp_path)


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
def test_every_committed_record_says_what_made_it() -> None:
    for path in (ROOT / "results").glob("*/**/*.json"):
        if path.name == "tables.json":
            continue
        found = json.loads(path.read_text())
        assert {"settings", "result", "cpu_s", "versions", "commit", "data"} <= set(found), path
        assert found["commit"] and not found["commit"].endswith("-changed"), path
        assert path.stat().st_size < 40_000, path
