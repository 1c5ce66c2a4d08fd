"""The options that scripts which reproduce results have in common, read and checked in one place."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch

from delaykit import DelaykitError, checks


@checks.annotated
def command_line(
    doc: str | None, *, out: str, full: str | None = None, seeds: tuple[int, int] = (3, 3), epochs: bool = False,
    data: str | None = None,
) -> argparse.ArgumentParser:  # fmt: skip
    """Make a parser with ``--seeds`` and ``--out``, and with ``--full``, ``--epochs`` and ``--data`` where asked for.

    A script adds its own options, then calls `read_options`.

    Args:
        doc: the script's docstring, shown by ``--help``.
        out: default folder for results, ``runs/mine`` or, by another option's value, ``runs/mine_{task}``; the full
            configuration has one beside it, ``runs/mine_full``.
        full: what ``--full`` means; None: there is no such option.
        seeds: default number of seeds of the reduction and of the full configuration.
        epochs: whether the number of epochs can be chosen; None means the configuration's own.
        data: what the folder of ``--data`` holds; None: there is no such option.

    Returns:
        The parser.

    Example:
        >>> parser = command_line("Train.", out="runs/mine", full="the paper's size", seeds=(3, 10), epochs=True)
        >>> options = parser.parse_args(["--full", "--epochs", "5"])
        >>> options.full, options.epochs
        (True, 5)
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    few, many = seeds
    some = f"{few}, with --full {many}" if full and few != many else f"{few}"
    parser.add_argument("--seeds", type=_positive, help=f"runs of each kind (default: {some})")
    parser.add_argument("--out", type=Path, help=f"folder for results and finished runs (default: {out})")
    if full is not None:
        parser.add_argument("--full", action="store_true", help=full)
    if epochs:
        parser.add_argument("--epochs", type=_positive, help="epochs (default: the configuration's)")
    if data is not None:
        parser.add_argument("--data", type=Path, help=data)
    parser.set_defaults(_out=out, _seeds=seeds, _data=data)
    return parser


def read_options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read a script's options, make its folder for results, and give a reduction one thread.

    From then on a `delaykit.DelaykitError` and Ctrl-C end the script in a sentence, without a traceback; a folder made
    here goes at the end if nothing was written into it.

    Args:
        parser: made by `command_line`.
        arguments: words of the command line; None: those of this process.

    Returns:
        The options; ``seeds`` and ``out`` are always set, ``full`` is False where there is no such option.

    Raises:
        SystemExit: as argparse does.

    Example:
        >>> parser = command_line("Train.", out="runs/mine", full="the paper's size", seeds=(3, 10))
        >>> options = read_options(parser, ["--full", "--out", "runs/other"])
        >>> options.seeds, str(options.out)
        (10, 'runs/other')
    """
    options = parser.parse_args(arguments)
    options.full = getattr(options, "full", False)
    options.seeds = options.seeds or options._seeds[options.full]
    options.out = options.out or Path(options._out.format_map(vars(options)) + ("_full" if options.full else ""))
    _make(options.out)
    if sys.excepthook is sys.__excepthook__:  # nobody else's
        sys.excepthook = _in_a_sentence
    if not options.full:
        torch.set_num_threads(1)
    return options


def data_folder(options: argparse.Namespace) -> Path:
    """Return the folder given by ``--data``; without one, say what is missing and end the script with an error.

    Args:
        options: what :func:`read_options` read.

    Raises:
        SystemExit: there is no such folder.

    Example:
        >>> parser = command_line("Train.", out="runs/other", data="folder with recordings")
        >>> data_folder(read_options(parser, []))
        Traceback (most recent call last):
        SystemExit: not run: needs folder with recordings; pass --data FOLDER
    """
    if options.data is None:
        raise SystemExit(f"not run: needs {options._data}; pass --data FOLDER")
    if not options.data.exists():
        raise SystemExit(f"{options.data}: no such folder; pass --data: {options._data}")
    return options.data


def _make(folder: Path) -> None:
    """Make a folder, and see to it that it goes at the end if it is as empty then."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if new:
        atexit.register(_unmake, new)


def _unmake(folders: Sequence[Path]) -> None:
    within = sorted((path for path in folders[0].rglob("*") if path.is_dir()), reverse=True)
    for folder in (*within, *folders):
        with contextlib.suppress(OSError):  # not empty, or gone
            folder.rmdir()


def _in_a_sentence(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Tell what ends a script: an error of the library, or Ctrl-C, which compiled code turns into another error."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    if any(isinstance(one, KeyboardInterrupt) for one in chain):
        print("stopped; what is finished is kept: run the same command to go on", file=sys.stderr)
    elif isinstance(error, DelaykitError):
        print(f"Error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, where)


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: expected 1 or more")
    return number
