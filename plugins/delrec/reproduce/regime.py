"""Where does learning delays beat freezing them? One thing varied at a time, on held-out samples alone.

    python plugins/delrec/reproduce/regime.py                          # vowels, which need no data
    python plugins/delrec/reproduce/regime.py --task speech --data FOLDER

For each setting the network with frozen random delays and the one with learned delays are trained from the same seeds:
the same weights, delays, order of samples and rates. The table gives the difference on validation samples, learned
minus frozen, seed by seed; the test set is never scored. Varied: neurons (16 to 256), synapses that there are at all (5
to 100 %), training samples, spread at the start (0: the frozen control has none either), rate of the delays, range of
the first delays, granularity, few delays a neuron, whole delays in training, and feed-forward in place of recurrent
delays. Every finished run is recorded and not repeated.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from common.few import cut
from common.plans import TASKS, Plan, data_of, files_of, plan_of
from common.variants import Variant, count, make
from equal_parameters import fit

from delaykit_lab import command_line, data_folder, read_options, record_path, remembered
from delaykit_lab.records.differences import differences_picture, differences_table
from delaykit_lab.task import Splits

PAIRS = {
    "recurrent": (Variant("frozen", True, control="frozen"), Variant("learned", True, control="learned")),
    "feed-forward": (Variant("frozen", False, forward="frozen"), Variant("learned", False, forward="learned")),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One setting of the map.

    Args:
        name: for the table.
        width: hidden neurons; None: the plan's.
        samples: training samples; None: all that the plan uses.
        delrec: fields of ``DelRec`` that differ.
        delay_lr: rate of the delays; None: the recipe's.
        where: which connections have delays.
        synapses: share of the hidden layers' synapses that exist.
        delays: share of the recurrent connection's delays that are not 0 for good.
    """

    name: str
    width: int | None = None
    samples: int | None = None
    delrec: tuple[tuple[str, Any], ...] = ()
    delay_lr: float | None = None
    where: str = "recurrent"
    synapses: float = 1.0
    delays: float = 1.0


CASES = (
    Case("as it is"),
    Case("16 neurons", width=16),
    Case("128 neurons", width=128),
    Case("256 neurons", width=256),
    Case("5 % of the synapses", synapses=0.05),
    Case("20 % of the synapses", synapses=0.2),
    Case("50 % of the synapses", synapses=0.5),
    Case("a third of the samples", samples=-3),
    Case("no spread", delrec=(("sigma", 0.0),)),
    Case("spread 10", delrec=(("sigma", 10.0),)),
    Case("a tenth of the delays' rate", delay_lr=0.005),
    Case("four times the delays' rate", delay_lr=0.2),
    Case("short delays", delrec=(("scale", 2.0),)),
    Case("one delay a layer", delrec=(("granularity", "layer"),)),
    Case("a delay a synapse", delrec=(("granularity", "synaptic"),)),
    Case("a delay at a tenth of the synapses", delrec=(("granularity", "synaptic"),), delays=0.1),
    Case("whole delays", delrec=(("rounding", "straight-through"),)),
    Case("feed-forward", where="feed-forward"),
)


def planned(case: Case, plan: Plan) -> Plan:
    """Apply a case to a plan."""
    shape = plan.shape if case.width is None else dataclasses.replace(plan.shape, widths=(case.width,))
    recipe = plan.recipe if case.delay_lr is None else dataclasses.replace(plan.recipe, delay_lr=case.delay_lr)
    delrec = dataclasses.replace(plan.delrec, **dict(case.delrec))
    return dataclasses.replace(plan, shape=shape, recipe=recipe, delrec=delrec)


def fewer(splits: Splits, samples: int | None) -> Splits:
    """Keep the first samples for training; a negative number is a divisor."""
    if samples is None:
        return splits
    number = samples if samples > 0 else len(splits.train) // -samples
    return dataclasses.replace(splits, train=splits.train.subset(torch.arange(number)))


@dataclasses.dataclass(frozen=True)
class Where:
    """What all runs share: the task, its data by seed, and the folder of records."""

    task: str
    splits: dict[int, Splits]
    out: Path
    files: list[Path]


def differences(case: Case, plan: Plan, where: Where) -> list[float]:
    """Train both of a pair with every seed; return learned minus frozen on validation."""
    plan = planned(case, plan)
    frozen, learned = ([run(case, one, plan, seed, where) for seed in where.splits] for one in PAIRS[case.where])
    return [two - one for one, two in zip(frozen, learned, strict=True)]


def run(case: Case, variant: Variant, plan: Plan, seed: int, where: Where) -> float:
    """Train once, or remember; return the score on validation after the last epoch."""
    splits = fewer(where.splits[seed], case.samples)
    settings = {"task": where.task, "plan": dataclasses.asdict(plan), "seed": seed, "samples": len(splits.train)}
    settings |= {"variant": variant.name, "where": case.where, "case": case.name}
    settings |= {key: getattr(case, key) for key in ("synapses", "delays") if getattr(case, key) < 1}
    name = f"{case.name}_{variant.name}_{seed}".replace(" ", "_").replace("'", "").replace("%", "percent")
    path = record_path(where.out, settings, name)

    def train() -> dict[str, Any]:
        channels, classes = splits.train.spikes.shape[-1], int(splits.train.labels.max()) + 1
        net = make(variant, channels, classes, plan.shape, plan.delrec, plan.dcls, seed)
        state = path.with_suffix(".safetensors")
        after = cut(net, case.synapses, case.delays, seed)
        history = fit(net, splits, plan, seed, state, name, after).history
        state.unlink(missing_ok=True)
        curve = [round(one["validation"], 4) for one in history]
        spent = sum(one["cpu_s"] for one in history)
        return {"validation": history[-1]["validation"], "curve": curve, "parameters": count(net), "cpu_s": spent}

    return remembered(path, settings, train, where.files)["validation"]


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with the data; the vowels need none"
    parser = command_line(__doc__, out="runs/delrec_regime_{task}", epochs=True, data=data)
    parser.add_argument("--task", default="vowels", choices=TASKS)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", default=names, choices=names)
    args = read_options(parser)
    if args.task != "vowels":
        data_folder(args)
    plan = plan_of(args.task, full=False)
    plan = dataclasses.replace(plan, epochs=args.epochs or plan.epochs)
    splits = {seed: data_of(args.task, args.data, False, seed) for seed in range(args.seeds)}
    where = Where(args.task, splits, args.out, files_of(args.task, args.data))
    found = {case.name: differences(case, plan, where) for case in CASES if case.name in args.cases}
    title = f"{args.task}, {plan.epochs} epochs, seeds: {args.seeds}"
    text = f"Learned against frozen delays: {title}\n\n{differences_table(found)}\n"
    (args.out / "table.md").write_text(text)
    print(text)
    differences_picture(found, title, args.out / "regime.png")


if __name__ == "__main__":
    main()
