"""Open tonic's data sets from files that are there, and say what is missing without going to the network.

tonic asks for the archive that it would have downloaded, and downloads where something is missing; what is half there
it meets with an error of its own. Here a data set is opened only if its files are complete; where not, the message
says which file goes where. With ``download=True`` tonic fetches what is missing, and checks its md5.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

from delaykit import DataError
from delaykit_lab.data.bounded import run_bounded
from delaykit_lab.data.frame_cache import checked_once
from delaykit_lab.data.spike_hdf5 import CHILD

FRAMES = "delaykit-frames"  # folder beside the data sets' own


def open_offline(base: type, folder: str | Path, download: bool = False, **options: Any) -> Any:
    """Return ``base(save_to=folder, **options)``, a tonic data set, or say what is missing.

    Args:
        base: class of ``tonic.datasets``.
        folder: what tonic calls ``save_to``.
        download: let tonic fetch what is missing.
        **options: of the class, e.g. ``train=False``.

    Raises:
        DataError: files are missing, half downloaded, of another checksum or layout.

    Example:
        >>> import tonic
        >>> open_offline(tonic.datasets.SHD, "/nowhere", train=True)
        Traceback (most recent call last):
        delaykit.errors.DataError: /nowhere/SHD: found no shd_train.h5; expected tonic's SHD. To go on: put ...
    """
    if not isinstance(folder, (str, Path)) or not str(folder):
        expected, fix = "the folder that tonic calls save_to", "pass path=, e.g. --set path=FOLDER"
        raise DataError(base.__name__, f"path {folder!r}", expected, fix)
    members: dict[str, Any] = {"_check_exists": _complete}
    if not download:
        members["download"] = _refuse
    opened = type(base.__name__, (base,), members)  # tonic's folder has the name of the class
    try:
        return opened(save_to=str(Path(folder).expanduser()), **options)
    except DataError:
        raise
    except AssertionError as problem:  # tonic asserts the magic numbers of idx files
        fix = "fetch the file again, and unpack it (gunzip -k)"
        found = f"files of another layout ({problem or 'wrong magic number'})"
        raise DataError(str(folder), found, f"tonic's {base.__name__}", fix) from problem
    except (OSError, KeyError, ValueError, RuntimeError) as problem:
        found = f"files that tonic cannot read ({type(problem).__name__}: {problem})"
        raise DataError(str(folder), found, f"tonic's {base.__name__}", "fetch them again") from problem


def _complete(dataset: Any) -> bool:
    """Replace tonic's look at the folder: the archive may be missing once its content is there."""
    folder = Path(dataset.location_on_system)
    if hasattr(dataset, "data_filename"):
        file = folder / dataset.data_filename
        if file.is_file():
            _check_hdf5(file)
            return True
        return _unpack(dataset, folder, file)
    if hasattr(dataset, "images_file"):
        return all((folder / name).is_file() for name in (dataset.images_file, dataset.labels_file))
    kind = "*.npy" if type(dataset).__name__ == "DVSGesture" else "*.bin"
    if next((folder / dataset.folder_name).rglob(kind), None) is not None:
        return True
    return _unpack(dataset, folder, folder / dataset.folder_name)


def _unpack(dataset: Any, folder: Path, wanted: Path) -> bool:
    """Unpack a zip archive that is there and whole; an empty one is tonic's marker and says nothing."""
    archive = folder / dataset.filename
    if not archive.is_file() or not archive.stat().st_size:
        return False
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    if digest.hexdigest() != dataset.file_md5:
        found = f"md5 {digest.hexdigest()}, {archive.stat().st_size:,} bytes: half downloaded, or another file"
        fix = f"delete it and fetch {dataset.url} again"
        raise DataError(str(archive), found, f"md5 {dataset.file_md5}", fix)
    if archive.suffix != ".zip":
        found, fix = f"an archive, and no {wanted.name} beside it", f"unpack it: tar -xf {archive.name}"
        raise DataError(str(archive), found, "its content", fix)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return wanted.exists()


def _check_hdf5(file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(8)
    if head != b"\x89HDF\r\n\x1a\n":
        fix = "it is another format, or a download that failed: fetch it again"
        raise DataError(str(file), f"a file that begins with {head!r}", "an HDF5 file", fix)
    stat, folder = file.stat(), file.parent.parent / FRAMES
    identity = {"file": file.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    checked_once(folder, identity, lambda: run_bounded(CHILD, file))  # a damaged file may hang or end the process


def _refuse(dataset: Any) -> None:
    folder, name = Path(dataset.location_on_system), type(dataset).__name__
    if hasattr(dataset, "images_file"):
        wanted = " and ".join(
            file for file in (dataset.images_file, dataset.labels_file) if not (folder / file).is_file()
        )
        fix = f"put {wanted}, unpacked, into {folder}; {dataset.base_url}{wanted.partition(' ')[0]}.gz"
        raise DataError(str(folder), f"no {wanted}", f"tonic's {name}", f"{fix}; or pass download=True")
    wanted = getattr(dataset, "data_filename", "") or dataset.folder_name
    fix = f"put {wanted} there, or its archive {dataset.filename} from {dataset.url}; or pass download=True"
    raise DataError(str(folder), f"no {wanted}", f"tonic's {name}", fix)
