"""Every error delaykit raises on purpose: where it happened, what was found, what was expected, how to go on."""

from __future__ import annotations

LONGEST = 500  # characters of what was found


class DelaykitError(Exception):
    """Base of all errors that delaykit raises for bad input or an unsupported model.

    Args:
        where: module path, file or object the message is about.
        found: what was there.
        expected: what should have been there.
        fix: the next step for the user.

    Example:
        >>> print(ShapeError("fc1", "input of 3 channels", "12 channels", "pass (batch, 12)"))
        fc1: found input of 3 channels; expected 12 channels. To go on: pass (batch, 12).
    """

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "") -> None:
        if len(found) > LONGEST:  # the text of a whole model that was passed in another place, say
            found = f"{' '.join(found.split()):.{LONGEST - 4}} ..."
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        message = f"{where}: found {found}"
        if expected:
            message += f"; expected {expected}"
        message += "."
        if fix:
            message += f" To go on: {fix.rstrip('.')}."
        super().__init__(message)

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return type(self), (self.where, self.found, self.expected, self.fix)


class ConfigError(DelaykitError, ValueError):
    """A component's configuration is outside its range or of the wrong type."""


class ShapeError(DelaykitError, ValueError):
    """A tensor has the wrong rank, size or dtype."""


PROJECT = (  # what to do about a parameter outside its bounds
    "call dk.attach(optimizer, net), which projects it after every step and at the places that a closure tries; a step "
    "written by hand (SAM) is projected by part.project_() of each part that has it"
)


class DelayRangeError(DelaykitError, ValueError):
    """A delay is NaN, infinite, negative or above its maximum."""


class UnknownNameError(DelaykitError, LookupError):
    """No component, plugin or site of that name."""


class PluginError(DelaykitError):
    """A plugin is broken, clashes with another, or speaks another interface version."""


class HistoryError(DelaykitError, RuntimeError):
    """A delay history would be stale, mixed between streams, or used outside its sequence."""


class TrainingError(DelaykitError, RuntimeError):
    """The optimizer does not hold what has to be trained, or training state is inconsistent."""


class CheckpointError(DelaykitError):
    """A checkpoint is truncated, foreign, newer than this version, or does not fit the model."""


class DataError(DelaykitError):
    """A data file is missing, truncated or not in the expected layout."""


class WrapError(DelaykitError):
    """A model cannot be wrapped as asked; carries all problems of the plan at once.

    Args:
        problems: one error for each problem found.
    """

    def __init__(self, problems: list[DelaykitError]) -> None:
        self.problems = list(problems)
        self.where, self.found, self.expected, self.fix = "model", f"{len(problems)} problem(s)", "", ""
        lines = "\n".join(f"  - {p}" for p in self.problems)
        Exception.__init__(self, f"this model cannot be wrapped as asked; it was left unchanged.\n{lines}")

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return type(self), (self.problems,)
