from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from trainers.whole_folders import (
    describe_files,
    discard,
    discard_leftovers,
    first_difference,
    write_folder,
)


def fill(folder: Path) -> None:
    (folder / "a").write_text("one")
    (folder / "inner").mkdir()
    (folder / "inner" / "b").write_text("two")


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "older").touch()
    write_folder(folder, fill)
    assert sorted(describe_files(folder)) == ["a", "inner/b"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), errno.ENOSPC),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), errno.EDQUOT),
        (SafetensorError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError("I/O error: Disk quota exceeded (os error 122)"), errno.EDQUOT),
        (Exception("No space left on device (os error 28)"), errno.ENOSPC),
    ],
)
def test_a_full_disk_is_an_os_error(tmp_path: Path, error: Exception, number: int) -> None:
    """Whichever library noticed; and what was there before stays."""
    folder = tmp_path / "model"
    write_folder(folder, fill)

    def fail(aside: Path) -> None:
        (aside / "a").write_text("half")
        raise error

    with pytest.raises(OSError, match=r"left|exceeded") as caught:
        write_folder(folder, fail)
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "a").read_text() == "one"


@pytest.mark.parametrize("error", [SafetensorError("header too large"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: BaseException) -> None:
    def fail(aside: Path) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        write_folder(tmp_path / "model", fail)
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_what_differs_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, fill)
    described = describe_files(folder)
    assert first_difference(folder, described) == ""
    (folder / "c").touch()
    assert first_difference(folder, described) == "c does not belong to it"
    assert first_difference(folder, described, ignored=("c",)) == ""
    (folder / "c").unlink()
    (folder / "a").write_text("1ne")
    assert first_difference(folder, described) == "a is not as it was written"
    (folder / "a").write_text("on")
    assert first_difference(folder, described) == "a must have 3 bytes, but has 2"
    (folder / "a").unlink()
    assert first_difference(folder, described) == "a is missing"
    for damaged in ({}, [], None, "a"):
        assert first_difference(folder, damaged) == "its list of files is unreadable"


def test_leftovers_go(tmp_path: Path) -> None:
    for name in (".aside-model", ".aside-old-model", "model"):
        fill_in = tmp_path / name
        fill_in.mkdir()
        fill(fill_in)
    discard_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    discard(tmp_path / "model")
    discard(tmp_path / "model")
    assert not list(tmp_path.iterdir())
