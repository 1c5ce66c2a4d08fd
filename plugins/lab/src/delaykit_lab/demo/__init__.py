"""The demo: a task that is timing, recorded speech as its control, and what delays cost.

``parts`` says what is trained, ``runs`` trains it, ``pictures`` draws it, ``cost`` takes the time of a training step.
"""

from delaykit_lab.demo.parts import DemoConfig, WaveConfig
from delaykit_lab.demo.runs import DemoResult, Run, run_demo

__all__ = ["DemoConfig", "DemoResult", "Run", "WaveConfig", "run_demo"]
