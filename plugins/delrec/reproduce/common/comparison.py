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
    train: Callable[[Net, Variant, Path], dict[str, Any]], settings: dict[str, Any], folder: Path,
    files: Sequence[Path] = (),
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Train what was not trained yet.

    Args:
        chosen: kinds of networks.
        shape: of the network with learned delays, which gives the number of parameters.
        build: makes a network.
        train: trains it; gets a file for its state.
        settings: JSON values that make a run besides its variant and size; one is the ``seed``.
        folder: for records and states.
        files: data that were read.

    Returns:
        For each variant's name its result.
    """
    numbers = count(build(VARIANTS[3], shape))
    results = {}
    for variant in chosen:
        _, found = at_equal_size(lambda s, v=variant: build(v, s), shape, numbers)
        one = {**settings, "variant": variant.name, "widths": found.widths}
        path = record_path(folder, one, f"{variant.name.replace(' ', '_').replace(',', '')}_{settings['seed']}")

        def run(variant=variant, found=found, path=path) -> dict[str, Any]:
            return train(build(variant, found), variant, path.with_suffix(".safetensors"))

        results[variant.name] = remembered(path, one, run, files)
    return results
