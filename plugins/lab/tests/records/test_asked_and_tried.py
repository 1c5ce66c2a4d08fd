"""What a page says of runs that are not there, of rates at the edge of those tried, and of shared controls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delaykit import CheckpointError, DataError
from delaykit_lab.records import asked, budget, page, published, rates

ONE = {"paper": "delrec", "name": "speech", "script": "go.py", "data": None, "what": "delays"}
ONE |= {"cpu": {"options": "--task speech --seeds 3", "cpu_hours": 0.5}}
MARKS = f"{published.BEGIN}\n{published.END}\n"


@pytest.fixture
def source(tmp_path) -> Path:
    """A checkout of one experiment whose command makes three seeds."""
    (tmp_path / "results" / "delrec" / "speech" / "tuning").mkdir(parents=True)
    (tmp_path / "results" / "experiments.json").write_text(json.dumps([ONE]))
    for page_of in ("results/README.md", "PAPER.md"):
        (tmp_path / page_of).write_text(MARKS)
    table = {
        "title": "Speech", "experiment": "speech", "unit": "%", "protocol": "reduced.", "picture": "one.png",
        "columns": [{"name": "test", "key": "test"}], "rows": [{"name": "all", "where": {"variant": "learned"}}],
    }  # fmt: skip
    (tmp_path / "results" / "delrec" / "tables.json").write_text(json.dumps({"readme": "PAPER.md", "tables": [table]}))
    (tmp_path / "results" / "delrec" / "speech" / "one.png").touch()
    return tmp_path


def record(source: Path, name: str, test: float, *, folder: str = "speech", **settings) -> Path:
    path = source / "results" / "delrec" / folder / f"{name}.json"
    path.write_text(json.dumps({"settings": settings, "result": {"test": test}, "cpu_s": 3600.0}))
    return path


def seeds(source: Path, variant: str, tests: list[float], **settings) -> list[Path]:
    return [record(source, f"{variant}{k}", test, variant=variant, seed=k, **settings) for k, test in enumerate(tests)]


def test_a_seed_that_is_not_there_is_told_everywhere(source) -> None:
    paths = seeds(source, "learned", [0.5, 0.6, 0.7])
    seeds(source, "frozen", [0.5, 0.5, 0.5])
    assert "| all | 0.6 ± 0.1 | 3 |" in published.tables(source, "delrec")
    assert budget.what_is_left(source).splitlines()[2:] == []
    paths[1].unlink()
    text = published.tables(source, "delrec")
    assert "| all | 0.6 ± 0.1 | 2 of 3 |" in text and "speech), 5 of 6 that its command makes." in text
    assert "| delrec | speech: delays | 5 of 6 |" in published.every_experiment(source)
    assert budget.what_is_left(source).splitlines()[2:] == ["| later | delrec | speech | 1 of 6 runs (seed 1) | 1 |"]
    pair = {"name": "delays", "paper": "delrec", "experiment": "speech"}
    pair |= {"frozen": {"variant": "frozen"}, "learned": {"variant": "learned"}}
    (source / "results" / "pairs.json").write_text(json.dumps([pair]))
    assert "| 2 of 3 |" in page.learned_against_frozen(source)


def test_seeds_that_are_missing_join_what_an_entry_says_and_cost_what_others_did(source) -> None:
    seeds(source, "learned", [0.5])
    entry = {"turn": "1", "paper": "delrec", "experiment": "speech", "missing": "the control", "cpu_hours": 4}
    order = source / "results" / "order.json"
    order.write_text(json.dumps({"cpu_hours": 40, "order": [entry]}))
    row = "| 1 | delrec | speech | the control; 2 of 3 runs (seeds 1, 2) | 6 |"
    assert budget.what_is_left(source).splitlines()[2:] == [row]
    order.write_text(json.dumps({"cpu_hours": 40, "order": [{k: entry[k] for k in ("turn", "paper", "experiment")}]}))
    assert "2 of 3 runs" in budget.what_is_left(source)
    seeds(source, "learned", [0.5, 0.5, 0.5])
    with pytest.raises(DataError, match="delrec/speech, with records"):
        budget.what_is_left(source)


def test_seeds_are_counted_for_settings_that_are_there() -> None:
    found = [{"settings": {"net": net, "seed": seed}} for net, seed in (("a", 0), ("a", 2), ("b", 0))]
    assert asked.lacking(found, 3) == {1: 2, 2: 1} and asked.lacking(found, None) == asked.lacking([], 3) == {}


def trial(source: Path, rate: float, variant: str = "learned") -> None:
    settings = {"variant": variant, "seed": 1000, "plan": {"epochs": 2, "lr": rate, "delay_lr": 10 * rate, "width": 8}}
    record(source, f"{variant}{rate}", 0.5, folder="speech/tuning", **settings)


@pytest.mark.parametrize(
    ("rate", "told", "beyond"),
    [(0.1, "0.1, lowest of 3", True), (0.2, "0.2", False), (0.4, "0.4, highest of 3", True), (0.3, "-", False)],
)
def test_a_rate_at_the_edge_of_those_tried_is_told(source, rate, told, beyond) -> None:
    """Trials of other networks, and rates that were not among the trials, are not looked at."""
    for tried in (0.1, 0.2, 0.4):
        trial(source, tried)
    trial(source, 0.8, "frozen")
    plan = {"epochs": 9, "lr": rate, "delay_lr": 10 * rate, "width": 8}
    seeds(source, "learned", [0.5, 0.6, 0.7], plan=plan)
    text = published.tables(source, "delrec")
    assert (f"| 0.6 ± 0.1 | {told} | 3 |" in text) == (told != "-") and (rates.BEYOND in text) == beyond
    seeds(source, "frozen", [0.5, 0.5, 0.5], plan=plan)
    pair = {"name": "delays", "paper": "delrec", "experiment": "speech"}
    pair |= {"frozen": {"variant": "frozen"}, "learned": {"variant": "learned"}}
    (source / "results" / "pairs.json").write_text(json.dumps([pair]))
    end = "not shown; learned at the edge of the rates tried |" if beyond else "not shown |"
    assert page.learned_against_frozen(source).endswith(end)


def test_rates_that_a_run_tried_itself_are_told() -> None:
    run = {"settings": {"rates": [0.01, 0.1]}, "result": {"rate": 0.1, "tried": {"0.01": 0.5, "0.1": 0.6}}}
    assert rates.told(rates.tried(run, [])) == "0.1, highest of 2"


def test_a_control_that_is_shared_is_told(source) -> None:
    for side, tests in (("frozen", [0.5, 0.6, 0.7]), ("learned", [0.8, 0.8, 0.9]), ("slow", [0.6, 0.7, 0.7])):
        seeds(source, side, tests)
    pair = {"paper": "delrec", "experiment": "speech", "frozen": {"variant": "frozen"}}
    pairs = [
        {**pair, "name": "fast", "learned": {"variant": "learned"}},
        {**pair, "name": "slow", "learned": {"variant": "slow"}},
        {**pair, "name": "same", "learned": {"variant": "learned"}},
        {**pair, "name": "other", "learned": {"variant": "learned"}, "frozen": {"variant": "slow"}},
    ]
    (source / "results" / "pairs.json").write_text(json.dumps(pairs))
    names = [line.split(" | ")[0] for line in page.learned_against_frozen(source).splitlines()[2:]]
    again = ["| slow (the frozen runs of *fast* again)", "| same (the runs of *fast* again)", "| other"]
    assert names == ["| fast", *again]


@pytest.mark.parametrize("text", ["{", "[]", "", "3", "\x00"])
@pytest.mark.parametrize(
    "name", ["delrec/speech/learned0.json", "delrec/speech/tuning/a.json", "questions/Q1.json", "benchmarks/a.json",
             "delrec/tables.json", "order.json"],
)  # fmt: skip
def test_a_file_that_is_no_record_is_told_in_full(source, name, text) -> None:
    seeds(source, "learned", [0.5, 0.6, 0.7])
    path = source / "results" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises((DataError, CheckpointError), match=path.name):
        published.update(source)
    with pytest.raises((DataError, CheckpointError), match=path.name):
        budget.what_is_left(source), budget.spent(source)


@pytest.mark.parametrize("name", ["experiments.json", "pairs.json", "figures.json"])
def test_a_list_that_is_none_is_told_in_full(source, name) -> None:
    seeds(source, "learned", [0.5])
    for text in ("{", "{}"):
        (source / "results" / name).write_text(text)
        with pytest.raises(DataError, match=name):
            published.update(source)


def test_a_picture_that_is_not_there_is_no_dead_link(source) -> None:
    seeds(source, "learned", [0.5])
    (source / "results" / "delrec" / "speech" / "one.png").unlink()
    with pytest.raises(DataError, match=r"one\.png.*run its command again"):
        published.update(source)
