"""delaykit and its peers side by side: one command, a virtual environment a peer, results compared before times.

    python benchmarks/peers/run.py [--peers snntorch norse ...] [--works net recurrent ...] [--sweeps] [--rounds 7]
    python benchmarks/peers/run.py --page            # writes the docs page anew from the record

Each environment holds the peer's own packages (``PACKAGES`` of ``peer_NAME.py``) and sees torch, and what else the
peer needs, from the environment that runs this script: all peers run the same torch. A new peer is one more file; the
peer ``floor`` does the dense products alone, and where it was measured the page gives multiples of it, too.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import record as records
from work import WORKS, write

from delaykit_lab.records.provenance import provenance

HERE = Path(__file__).parent
TOP = HERE.parents[1]
RECORD, PAGE = TOP / "results" / "benchmarks" / "peers.json", TOP / "docs" / "reference" / "benchmarks.md"
PICTURE = TOP / "docs" / "images" / "peers.png"
PEERS = sorted(path.stem.removeprefix("peer_") for path in HERE.glob("peer_*.py"))


def packages(peer: str) -> list[str]:
    """Read what a peer needs without importing it."""
    for node in ast.parse((HERE / f"peer_{peer}.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES":
            found: list[str] = ast.literal_eval(node.value)
            return found
    return []


def environment(peer: str, root: Path) -> Path:
    """Make a peer's virtual environment, if it is not there; return its interpreter."""
    home = root / peer
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, clear=True, with_pip=False)
        site = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
        if wanted := packages(peer):
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, *wanted]
            subprocess.run(install, check=True)
        Path(site, "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (home / "ready").touch()
    return python


class Running:
    """One peer at one work item, in a process that waits to be asked for a round."""

    def __init__(self, peer: str, work: str, file: Path, python: Path) -> None:
        paths = [str(HERE), str(TOP)] if peer == "delaykit" else [str(HERE)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [str(python), str(HERE / "measure.py"), f"peer_{peer}", work, str(file)]
        self.peer, self.work, self.complaints = peer, work, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints, text=True
        )
        self.wait()

    def wait(self) -> None:
        """Wait until the peer is ready for a round, or has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                return

    def round(self) -> None:
        """Let it run one round, if it has not ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            self.wait()

    def end(self) -> dict[str, Any]:
        """Take what it measured; what it says if it failed is part of the record."""
        told, _ = self.process.communicate()
        if self.process.returncode:
            self.complaints.seek(0)
            run: dict[str, Any] = {"rows": [], "failed": self.complaints.read().strip().splitlines()[-1:]}
        else:
            run = json.loads(told.strip().splitlines()[-1])
        return {"peer": self.peer, "work": self.work} | run


def page(record: dict[str, Any]) -> str:
    """Write the record as a page: for each work item, times as multiples of the bare snnTorch loop."""
    settings, measured = record["settings"], record["result"]["runs"]
    lines = [
        "# Benchmarks beside other libraries",
        "",
        "Written by `python benchmarks/peers/run.py --page` from `results/benchmarks/peers.json`; the same command "
        "without `--page` measures anew. Forward and backward pass, process-CPU time, one thread, median of "
        f"{settings['rounds']} rounds that all take in turn; the same weights and inputs for all. Before anything is "
        "timed, spikes are "
        "compared with the neuron's equations in float64 (at most 1 of 1000 may differ by rounding), and networks with "
        "delays with their own step loop. snnTorch resets one step later than Norse and SpikingJelly, so these are "
        "judged by equations of their own. *First call* contains what is compiled or read from a cache, "
        "and the peak is that of the whole process. Read ratios, and these with a tolerance of a tenth. "
        "What differs by more (a chaotic net does by the order of a sum) is not timed.",
        "",
        "![Times as multiples of snnTorch's loop without delays](../images/peers.png)",
        "",
        f"{settings['machine']}; torch {record['versions']['torch']}; " + ", ".join(settings["packages"]) + ".",
    ]
    for work in WORKS.values():
        runs = [run for run in measured if run["work"] == work.name]
        rows = [(run["peer"], row, run["peak_mb"]) for run in runs for row in run["rows"]]
        if not rows:
            continue
        sizes = "-".join(map(str, work.sizes))
        base = next((row["ms"] for who, row, _ in rows if who == "snntorch" and "ms" in row), None)
        lines += ["", f"## {work.name}: {sizes}, {work.time} steps, batch {work.batch}, delays to {work.depth}", ""]
        floor = next((row["ms"] for who, row, _ in rows if who == "floor"), None)
        ratios = ["x snnTorch's loop"] + ["x the floor"] * (floor is not None)
        heads = ["who", "how", "ms", "least-most", *ratios, "first call, ms", "differ", "peak, MB"]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for who, row, peak in rows:
            against = [base] if floor is None else [base, floor]
            ratio = " | ".join(f"{row['ms'] / one:.2f}" if one and "ms" in row else "-" for one in against)
            times = f"{row['ms']:.0f} | {row['least_ms']:.0f}-{row['most_ms']:.0f}" if "ms" in row else "not timed | -"
            cells = [who, row["way"], times, ratio, f"{row['first_ms']:.0f}", f"{row['differ']:.1e}", f"{peak:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    failed = [run for run in measured if "failed" in run]
    if failed:
        lines += ["", "## Not run", ""]
        lines += [f"- {run['peer']}, {run['work']}: `{' '.join(run['failed'])}`" for run in failed]
    return "\n".join(lines) + "\n"


PICTURED = {
    "net": "three layers, 140-256-256-20\n100 steps, 32 samples",
    "recurrent": "a recurrent layer of 256\n100 steps, 32 samples",
    "depth 64": "one layer, 256-256, long delays\n600 steps, 4 samples",
}
BARS = {  # from top to bottom, in the order of what they do
    ("floor", "products"): "matrix products alone: nobody is faster",
    ("norse", "loop"): "Norse, loop: no delays",
    ("norse", "compiled step"): "Norse, compiled step: no delays",
    ("spikingjelly", "multi-step"): "SpikingJelly, multi-step: no delays",
    ("snntorch", "loop"): "snnTorch, loop: no delays",
    ("delaykit", "none, fused"): "the same with dk.fused: no delays",
    ("delaykit", "axonal, fused"): "dk.fused: a delay per neuron",
    ("delaykit", "synaptic, fused"): "dk.fused: a delay per synapse",
    ("delaykit", "axonal, loop"): "wrapped loop: a delay per neuron",
    ("delaykit", "synaptic, loop"): "wrapped loop: a delay per synapse",
}


def picture(record: dict[str, Any]) -> None:
    """Draw the ways that have a bar as multiples of snnTorch's loop: other libraries, delaykit, and the floor."""
    from delaykit.plotting import axes, colours

    others, ours = colours(2)
    panels = cast("Any", axes(size=(11.0, 3.8), ncols=len(PICTURED), sharey=True, layout="constrained"))
    for panel, (work, title) in zip(panels, PICTURED.items(), strict=True):
        runs = [run for run in record["result"]["runs"] if run["work"] == work]
        times = {(run["peer"], row["way"]): row["ms"] for run in runs for row in run["rows"] if "ms" in row}
        base = times["snntorch", "loop"]
        for height, (peer, way) in enumerate(BARS):
            if (peer, way) not in times:
                panel.text(0.05, height, "has no such layer", va="center", fontsize=8)
                continue
            colour = {"floor": "0.6", "delaykit": ours}.get(peer, others)
            ratio = times[peer, way] / base
            panel.barh(height, ratio, color=colour)
            panel.text(ratio + 0.03, height, f"{ratio:.2f}", va="center", fontsize=8)
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.set(title=title, xlabel="x snnTorch's loop; shorter is faster")
        panel.margins(x=0.15)
    panels[0].set_yticks(range(len(BARS)), list(BARS.values()))
    panels[0].invert_yaxis()
    figure = panels[0].get_figure()
    figure.suptitle("CPU time of one training step, forward and backward, on one core")
    figure.savefig(PICTURE)


def keep(runs: list[dict[str, Any]], rounds: int, made: dict[str, Any]) -> None:
    """Write the record."""
    needed = sorted({package for peer in PEERS for package in packages(peer)})
    records.write("peers", {"rounds": rounds, "unit": "process CPU ms", "packages": needed}, {"runs": runs}, made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--works", nargs="+", choices=list(WORKS))
    parser.add_argument("--sweeps", action="store_true", help="also the works that take minutes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "delaykit-peers")
    parser.add_argument("--page", action="store_true", help="only write the page, from the record")
    given = parser.parse_args()
    if not given.page:
        made = provenance()
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {"commit": None}
        # What another commit measured is not put beside this one's.
        before = record["result"]["runs"] if record["commit"] == made["commit"] else []
        kept = {(run["peer"], run["work"]): run for run in before}
        for work in given.works or [w.name for w in WORKS.values() if given.sweeps or not w.sweep]:
            file = given.environments / f"{work.replace(' ', '-')}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            write(WORKS[work], file)
            peers = [Running(peer, work, file, environment(peer, given.environments)) for peer in given.peers]
            for peer in peers * given.rounds:
                peer.round()
            for run in (peer.end() for peer in peers):
                kept[run["peer"], work] = run
                told = run.get("failed") or [row.get("ms") for row in run["rows"]]
                sys.stdout.write(f"{run['peer']}, {work}: {told}\n")
            keep(list(kept.values()), given.rounds, made)  # what was measured stays if the next is interrupted
    record = json.loads(RECORD.read_text())
    PAGE.write_text(page(record))
    picture(record)


if __name__ == "__main__":
    main()
