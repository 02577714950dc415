from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trainers.checkpoint_files import newest_checkpoint, remove_checkpoints, write_checkpoint
from trainers.whole_folders import describe_files, discard_leftovers

TENSORS = {"weights/a": torch.arange(6.0).reshape(2, 3), "random/cpu": torch.zeros(4)}
SHAPES = {"a": (2, 3)}
FILES = ("tensors.safetensors", "state.json", "manifest.json")


def write(workdir: Path, step: int, identity: str = "mine") -> Path:
    write_checkpoint(workdir, step, identity, TENSORS, {"step": step, "note": "x" * 40})
    return workdir / f"checkpoint-{step}"


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with two whole checkpoints, and the newer of them."""
    workdir = tmp_path / "trial"
    shutil.copytree(write(workdir, 2), tmp_path / "older")
    newer = write(workdir, 10)
    assert [folder.name for folder in workdir.iterdir()] == ["checkpoint-10"]
    (tmp_path / "older").rename(workdir / "checkpoint-2")
    return workdir, newer


def passed_over(workdir: Path) -> str:
    """Why the newer of two was passed over."""
    found, notes = newest_checkpoint(workdir, "mine", SHAPES)
    assert found is not None
    assert found.step == 2
    assert torch.equal(found.tensors("weights/")["a"], TENSORS["weights/a"])
    (note,) = notes
    assert note.startswith("checkpoint-10 was passed over: ")
    return note.removeprefix("checkpoint-10 was passed over: ")


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_the_newest_is_found(two: tuple[Path, Path]) -> None:
    found, notes = newest_checkpoint(two[0], "mine", SHAPES)
    assert found is not None
    assert (found.step, found.state["step"], notes) == (10, 10, ())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, lambda _: b"", lambda _: b"\0" * 100])
def test_a_damaged_file(
    two: tuple[Path, Path], name: str, damage: Callable[[bytes], bytes]
) -> None:
    file = two[1] / name
    file.write_bytes(damage(file.read_bytes()))
    assert passed_over(two[0])


@pytest.mark.parametrize("byte", range(0, 329, 7))
def test_any_flipped_byte_of_the_manifest_is_harmless(two: tuple[Path, Path], byte: int) -> None:
    """It is passed over, or what it says of the files still holds."""
    file = two[1] / "manifest.json"
    data = bytearray(file.read_bytes())
    data[byte] ^= 1
    file.write_bytes(data)
    found, _ = newest_checkpoint(two[0], "mine", SHAPES)
    assert found is not None
    assert found.state["step"] == found.step


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(two: tuple[Path, Path], name: str) -> None:
    (two[1] / name).unlink()
    assert passed_over(two[0]) == f"{name} is missing"


def test_a_strange_file(two: tuple[Path, Path]) -> None:
    (two[1] / "optimizer.pt").write_bytes(b"")
    assert passed_over(two[0]) == "'optimizer.pt' does not belong to it"


def test_a_checkpoint_of_another_training(two: tuple[Path, Path]) -> None:
    shutil.rmtree(two[1])
    other = write(two[0].parent / "other", 10, identity="yours")
    other.rename(two[1])
    assert passed_over(two[0]).startswith("it belongs to other settings")


def test_a_renamed_checkpoint(two: tuple[Path, Path]) -> None:
    (two[0] / "checkpoint-2").rename(two[0] / "checkpoint-3")
    two[1].rename(two[0] / "checkpoint-11")
    found, notes = newest_checkpoint(two[0], "mine", SHAPES)
    assert found is None
    assert len(notes) == 2


def test_other_parameters(two: tuple[Path, Path]) -> None:
    found, notes = newest_checkpoint(two[0], "mine", {"a": (3, 2)})
    assert found is None
    assert notes[0].endswith("its parameters are not those that are trained")


def forge(folder: Path, **changes: Any) -> None:
    """A manifest that says what the files now are."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    files = {k: v for k, v in describe_files(folder).items() if k != "manifest.json"}
    manifest |= {"files": files, **changes}
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_pickle_is_never_opened(two: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Not even where its hash is the manifest's."""
    target = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(target))
    pickle.loads(bomb)
    assert target.exists()
    target.unlink()
    (two[1] / name).write_bytes(bomb)
    forge(two[1])
    assert passed_over(two[0]).startswith("it cannot be read")
    assert not target.exists()


@pytest.mark.parametrize(
    "files",
    [{}, [], None, {"../../secret": {"size": 1, "sha256": ""}}, {"state.json": 1}],
)
def test_a_hostile_manifest(two: tuple[Path, Path], files: Any) -> None:
    forge(two[1], files=files)
    assert "must list" in passed_over(two[0])


def test_a_deeply_nested_manifest(two: tuple[Path, Path]) -> None:
    (two[1] / "manifest.json").write_text("[" * 200_000)
    assert passed_over(two[0]).startswith("it cannot be read")


def test_tensors_of_a_forged_state(two: tuple[Path, Path]) -> None:
    save_file({"weights/b": torch.zeros(1)}, two[1] / "tensors.safetensors")
    forge(two[1])
    assert passed_over(two[0]) == "its parameters are not those that are trained"


def test_the_next_save_removes_the_others(two: tuple[Path, Path]) -> None:
    (two[1] / "state.json").unlink()
    write(two[0], 4)
    assert [folder.name for folder in two[0].iterdir()] == ["checkpoint-4"]


def test_a_damaged_one_of_the_same_step_is_replaced(two: tuple[Path, Path]) -> None:
    (two[1] / "state.json").unlink()
    write(two[0], 10)
    found, notes = newest_checkpoint(two[0], "mine", SHAPES)
    assert found is not None
    assert (found.step, notes) == (10, ())


def test_leftovers_of_a_killed_process(two: tuple[Path, Path]) -> None:
    (two[0] / "checkpoint-7").write_text("a file")
    (two[0] / "checkpoint-x").mkdir()
    (two[0] / ".aside-checkpoint-11").mkdir()
    (two[0] / ".aside-checkpoint-11" / "tensors.safetensors").write_bytes(b"half")
    (two[0] / ".aside-old-checkpoint-1").mkdir()
    found, notes = newest_checkpoint(two[0], "mine", SHAPES)
    assert found is not None
    assert (found.step, notes) == (10, ())
    discard_leftovers(two[0])
    remove_checkpoints(two[0])
    assert sorted(entry.name for entry in two[0].iterdir()) == ["checkpoint-7", "checkpoint-x"]
