"""Folders that are either whole or not there, and that can be checked against what was written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainers.fingerprint import file_sha256

_ASIDE = ".aside-"
"""Begins the name of a folder that is being written or thrown away."""

_NO_ROOM = {
    "no space left": errno.ENOSPC,
    f"os error {errno.ENOSPC}": errno.ENOSPC,
    "quota exceeded": errno.EDQUOT,
    f"os error {errno.EDQUOT}": errno.EDQUOT,
}


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write beside the folder, sync every file, and put all of it in place with one rename.

    What was in the folder's place before stays until the new one is whole.

    Args:
        folder: where the files go.
        fill: writes the files into the folder it is given.

    Raises:
        OSError: the disk is full, whichever library noticed; nothing half-written is left.
    """
    aside = folder.with_name(f"{_ASIDE}{folder.name}")
    discard(aside)
    aside.mkdir(parents=True)
    try:
        with no_room_as_os_error(folder):
            fill(aside)
            for file in sorted(aside.rglob("*")):
                _sync(file)
            _sync(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    discard(folder)
    os.replace(aside, folder)
    _sync(folder.parent)


def discard(folder: Path) -> None:
    """Remove a folder; one that is killed meanwhile leaves nothing that looks whole.

    Args:
        folder: need not exist.
    """
    if not folder.exists():
        return
    doomed = folder
    if not folder.name.startswith(_ASIDE):
        doomed = folder.with_name(f"{_ASIDE}old-{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(folder, doomed)
    shutil.rmtree(doomed)


def discard_leftovers(parent: Path) -> None:
    """Remove what a killed process was writing or throwing away.

    Args:
        parent: the folder in which whole folders are kept.
    """
    for leftover in parent.glob(f"{_ASIDE}*"):
        discard(leftover)


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file under a folder, by its path in the folder.

    Args:
        folder: of files that will not change.
    """
    return {
        file.relative_to(folder).as_posix(): {
            "size": file.stat().st_size,
            "sha256": file_sha256(file),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def first_difference(folder: Path, described: object, ignored: Collection[str] = ()) -> str:
    """What is first found to differ from what `describe_files` said; empty where all is equal.

    Args:
        folder: to look at.
        described: the description, as it was read from a file that may itself be damaged.
        ignored: files that the description is silent about.
    """
    if not isinstance(described, Mapping) or not described:
        return "its list of files is unreadable"
    present = {
        file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()
    }
    for name in sorted({*described, *present} - {*ignored}, key=str):
        wanted, file = described.get(name), present.get(name)
        if file is None:
            return f"{name} is missing"
        if not isinstance(wanted, Mapping):
            return f"{name} does not belong to it"
        if file.stat().st_size != wanted.get("size"):
            return f"{name} must have {wanted.get('size')} bytes, but has {file.stat().st_size}"
        if file_sha256(file) != wanted.get("sha256"):
            return f"{name} is not as it was written"
    return ""


@contextlib.contextmanager
def no_room_as_os_error(place: Path) -> Iterator[None]:
    """Raise OSError with ENOSPC or EDQUOT where any library says that the disk is full.

    Args:
        place: what was being written.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        # Rust libraries have error types of their own (tokenizers a bare Exception): that the disk
        # is full stands in the text alone.
        text = str(error).lower()
        for words, number in _NO_ROOM.items():
            if words in text:
                raise OSError(number, os.strerror(number), str(place)) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
