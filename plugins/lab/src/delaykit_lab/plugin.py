"""Entry point of the plugin: records and commands only; what they name is imported on first use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from delaykit import Component, hookimpl

if TYPE_CHECKING:
    import click

DELAYKIT_API = 1


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the tasks, each a frozen dataclass with ``splits(seed)``."""
    yield Component(
        "task",
        "japanese-vowels",
        "delaykit_lab.tasks.japanese_vowels:JapaneseVowels",
        "who speaks? recorded vowels of nine speakers, shipped inside sktime's wheel",
        "Mineichi Kudo, Jun Toyama and Masaru Shimbo 1999, Multidimensional curve classification using passing-through "
        "regions, Pattern Recognition Letters 20, 1103-1111",
    )
    yield Component(
        "task",
        "match-to-sample",
        "delaykit_lab.tasks.match_to_sample:MatchToSample",
        "was the second cue the first one again? a gap to be remembered through; made, nothing is read",
        "Zhichao Deng, Zhikun Liu, Junxue Wang, Shengqian Chen, Xiang Wei and Qiang Yu 2025, HetSyn: versatile "
        "timescale integration in spiking neural networks via heterogeneous synapses, arXiv 2508.11644",
    )
    yield Component(
        "task",
        "mnist",
        "delaykit_lab.tasks.mnist:MNIST",
        "which digit? a spike a pixel, bright ones early; scikit-learn's digits where no MNIST files are given",
        "Yann LeCun, Léon Bottou, Yoshua Bengio and Patrick Haffner 1998, Gradient-based learning applied to document "
        "recognition, Proceedings of the IEEE 86, 2278-2324",
    )
    yield Component(
        "task",
        "spike-files",
        "delaykit_lab.tasks.spike_files:SpikeFiles",
        "classify spike trains from HDF5 files in the layout of the Heidelberg digits",
        "Benjamin Cramer, Yannik Stradmann, Johannes Schemmel and Friedemann Zenke 2020, The Heidelberg spiking "
        "datasets, arXiv 1910.07407",
    )
    yield Component(
        "task",
        "yin-yang",
        "delaykit_lab.tasks.yin_yang:YinYang",
        "which part of the figure? points told by the times of four spikes; made, nothing is read",
        "Laura Kriener, Julian Göltz and Mihai A. Petrovici 2022, The Yin-Yang dataset, NICE",
    )
    yield from _need_delays()
    yield from _read_by_tonic()


@hookimpl
def delaykit_commands(cli: click.Group) -> None:
    """Add ``delaykit demo``, ``train``, ``compare``, ``question`` and ``reproduce``."""
    from delaykit_lab.commands.compare import compare, question
    from delaykit_lab.commands.demo import demo, reproduce
    from delaykit_lab.commands.train import train

    for command in (demo, train, compare, question, reproduce):
        cli.add_command(command)


@hookimpl
def delaykit_health() -> Iterator[tuple[str, bool, str]]:
    """Say whether the recordings that the demo needs are at hand."""
    from delaykit import DataError
    from delaykit_lab.data.japanese_vowels import installed_folder

    try:
        yield "lab: JapaneseVowels recordings", True, str(installed_folder())
    except DataError as problem:
        yield "lab: JapaneseVowels recordings", False, problem.fix


def _need_delays() -> Iterator[Component]:
    yield Component(
        "task",
        "coincidence",
        "delaykit_lab.tasks.coincidence:Coincidence",
        "which order did the channels fire in? needs delays; made, nothing is read",
    )
    yield Component(
        "task",
        "interval",
        "delaykit_lab.tasks.interval:IntervalDiscrimination",
        "how long was it between two clicks? needs delays; made, nothing is read",
    )
    yield Component(
        "task",
        "moving-wave",
        "delaykit_lab.tasks.moving_wave:MovingWave",
        "where does the wave come from? needs delays; made, nothing is read",
    )
    yield Component(
        "task",
        "sound-localisation",
        "delaykit_lab.tasks.sound_localisation:SoundLocalisation",
        "where does the sound come from? interaural delays; needs delays; made, nothing is read",
        "Lloyd A. Jeffress 1948, A place theory of sound localization, Journal of Comparative and Physiological "
        "Psychology 41, 35-39",
    )


def _read_by_tonic() -> Iterator[Component]:
    yield Component(
        "task",
        "dvsgesture",
        "delaykit_lab.tasks.event_cameras:DVSGesture",
        "eleven gestures before an event camera, read by tonic",
        "Arnon Amir et al. 2017, A low power fully event-based gesture recognition system, CVPR",
    )
    yield Component(
        "task",
        "nmnist",
        "delaykit_lab.tasks.event_cameras:NMNIST",
        "digits before a moving event camera, read by tonic",
        "Garrick Orchard, Ajinkya Jayawant, Gregory K. Cohen and Nitish Thakor 2015, Converting static image datasets "
        "to spiking neuromorphic datasets using saccades, Frontiers in Neuroscience 9, 437",
    )
    yield Component(
        "task",
        "psmnist",
        "delaykit_lab.tasks.sequential_mnist:PSMNIST",
        "MNIST pixel by pixel in one random order, encoded by tonic",
        "Quoc V. Le, Navdeep Jaitly and Geoffrey E. Hinton 2015, A simple way to initialize recurrent networks of "
        "rectified linear units, arXiv 1504.00941",
    )
    yield Component(
        "task",
        "shd",
        "delaykit_lab.tasks.heidelberg:SHD",
        "spoken digits through a cochlea model, read by tonic",
        "Benjamin Cramer, Yannik Stradmann, Johannes Schemmel and Friedemann Zenke 2020, The Heidelberg spiking "
        "datasets, arXiv 1910.07407",
    )
    yield Component(
        "task",
        "smnist",
        "delaykit_lab.tasks.sequential_mnist:SMNIST",
        "MNIST pixel by pixel, encoded by tonic",
        "Guillaume Bellec et al. 2018, Long short-term memory and learning-to-learn in networks of spiking neurons, "
        "arXiv 1803.09574",
    )
    yield Component(
        "task",
        "ssc",
        "delaykit_lab.tasks.heidelberg:SSC",
        "spoken commands through a cochlea model, read by tonic",
        "Benjamin Cramer, Yannik Stradmann, Johannes Schemmel and Friedemann Zenke 2020, The Heidelberg spiking "
        "datasets, arXiv 1910.07407",
    )
