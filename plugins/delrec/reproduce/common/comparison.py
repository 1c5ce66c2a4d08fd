"""Every kind of network at the number of parameters of the one with learned delays, for one seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.networks import Net, Shape
from common.variants import VARIANTS, Variant, at_equal_size, count
from delaykit_lab import record_path, remembered


def compared(
    chosen: Sequence[Variant], shape: Shape, build: Callable[[Variant, Shape], Net],
    train: Callable[[Net, Variant, Path], dict[str, Any]], plan: Any, seed: int, folder: Path,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Train what was not trained yet.

    Args:
        chosen: kinds of networks.
        shape: of the network with learned delays, which gives the number of parameters.
        build: makes a network.
        train: trains it; gets a file for its state.
        plan: settings, recorded by their repr.
        seed: recorded, too.
        folder: for records and states.

    Returns:
        For each variant's name its result.
    """
    numbers = count(build(VARIANTS[3], shape))
    results = {}
    for variant in chosen:
        _, found = at_equal_size(lambda s, v=variant: build(v, s), shape, numbers)
        settings = {"plan": repr(plan), "variant": variant.name, "seed": seed, "shape": repr(found)}
        path = record_path(folder, settings, f"{variant.name.replace(' ', '_').replace(',', '')}_{seed}")

        def run(variant=variant, found=found, path=path) -> dict[str, Any]:
            return train(build(variant, found), variant, path.with_suffix(".safetensors"))

        results[variant.name] = remembered(path, settings, run)
    return results
