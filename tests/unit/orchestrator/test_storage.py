"""Results are whole or not there, and belong to the trial that they say they are of."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage import SweepFolder, write_json
from search_spaces.atomic import write_atomically
from tests.unit.orchestrator.trials import write_failure, write_result


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "runs" / "tiny")


def test_a_result_that_was_written_is_read(folder: SweepFolder) -> None:
    assert folder.result("a") is None
    write_result(folder, "a", rouge1=1.0)
    result = folder.result("a")
    assert result is not None
    assert result["scores"] == {"valid/rouge1": 1.0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"id": "a", "scor',
        b"[]",
        b"null",
        b'"a"',
        b'{"id": "b"}',
        b"{}",
        b'{"id": "a", "name": "\xff"}',
        b'{"id": "a"}' + b"\0",
    ],
)
def test_what_is_no_result_of_this_trial_counts_as_absent(
    folder: SweepFolder, content: bytes
) -> None:
    file = folder.trial("a") / "result.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert folder.result("a") is None
    assert folder.failure("a") is None


def test_a_folder_in_a_results_place_counts_as_absent(folder: SweepFolder) -> None:
    (folder.trial("a") / "result.json").mkdir(parents=True)
    assert folder.result("a") is None


def test_every_truncation_of_a_result_counts_as_absent(folder: SweepFolder) -> None:
    file = write_result(folder, "a", rouge1=1.0)
    whole = file.read_bytes()
    for length in range(len(whole) - 2):  # Without its last line end it is still whole.
        file.write_bytes(whole[:length])
        assert folder.result("a") is None, length


def test_a_failure_counts_only_without_a_result(folder: SweepFolder) -> None:
    write_failure(folder, "a")
    failure = folder.failure("a")
    assert failure is not None
    assert failure["reason"] == "diverged"
    write_result(folder, "a")
    assert folder.failure("a") is None


def test_a_write_that_fails_leaves_what_was_there(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_result(folder, "a", rouge1=1.0)
    before = file.read_bytes()

    def refuse(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        write_result(folder, "a", rouge1=2.0)
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_not_written(folder: SweepFolder, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        folder.write_json("status.json", {"value": value})
    assert not (folder.path / "status.json").exists()


def test_readers_see_one_whole_file_or_the_other(tmp_path: Path) -> None:
    file, wrong = tmp_path / "status.json", []
    contents = [json.dumps({"id": number, "text": "x" * 40_000}) for number in range(2)]
    write_atomically(file, contents[0])
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if file.read_text() not in contents:
                wrong.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        write_atomically(file, contents[number % 2])
    done.set()
    reader.join()
    assert not wrong
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_files_are_utf_8_and_end_in_a_line_end(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "status.json"
    write_json(file, {"text": "grüße"})
    assert file.read_bytes() == '{\n  "text": "grüße"\n}\n'.encode()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):  # Made, and put in the place of another.
            write_atomically(tmp_path / "result.json", "text with names in it")
    finally:
        os.umask(before)
    assert (tmp_path / "result.json").stat().st_mode & 0o777 == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.fixture
def sibling(folder: SweepFolder) -> SweepFolder:
    """Another sweep under the same folder, with a finished trial `a`."""
    other = SweepFolder(folder.path.parent / "other")
    write_result(other, "a", rouge1=7.0)
    trial = other.trial("a")
    (trial / "model").mkdir()
    (trial / "model" / "weights").write_bytes(b"w" * 100)
    (trial / "replies.jsonl").write_text("{}\n")
    return other


def test_a_trial_of_another_sweep_is_adopted(folder: SweepFolder, sibling: SweepFolder) -> None:
    assert folder.adopt("a")
    assert folder.result("a") == sibling.result("a")
    own = folder.trial("a")
    assert (own / "model" / "weights").read_bytes() == b"w" * 100
    assert (own / "replies.jsonl").read_text() == "{}\n"
    assert (own / "model" / "weights").samefile(sibling.trial("a") / "model" / "weights")


def test_the_adopted_stays_when_the_other_sweep_goes(
    folder: SweepFolder, sibling: SweepFolder
) -> None:
    assert folder.adopt("a")
    shutil.rmtree(sibling.path)
    assert folder.result("a") is not None
    assert (folder.trial("a") / "model" / "weights").read_bytes() == b"w" * 100


def test_an_adopted_result_is_no_link_that_the_other_sweep_could_change(
    folder: SweepFolder, sibling: SweepFolder
) -> None:
    assert folder.adopt("a")
    write_result(sibling, "a", rouge1=0.0)
    result = folder.result("a")
    assert result is not None
    assert result["scores"] == {"valid/rouge1": 7.0}


def test_files_are_copied_where_they_cannot_be_linked(
    folder: SweepFolder, sibling: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("another device")

    monkeypatch.setattr(os, "link", refuse)
    assert folder.adopt("a")
    own = folder.trial("a") / "model" / "weights"
    assert own.read_bytes() == b"w" * 100
    assert not own.samefile(sibling.trial("a") / "model" / "weights")


def test_leftovers_of_an_interrupted_trial_give_way(
    folder: SweepFolder, sibling: SweepFolder
) -> None:
    write_failure(folder, "a")
    (folder.trial("a") / "replies.jsonl").write_text("old\n")
    assert folder.adopt("a")
    assert (folder.trial("a") / "replies.jsonl").read_text() == "{}\n"
    assert folder.failure("a") is None


def test_an_interrupted_adoption_is_no_result(
    folder: SweepFolder, sibling: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.storage.write_atomically", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folder.adopt("a")
    assert folder.result("a") is None
    monkeypatch.undo()
    assert folder.adopt("a")


def test_half_a_result_and_failures_are_not_adopted(
    folder: SweepFolder, sibling: SweepFolder
) -> None:
    file = sibling.trial("a") / "result.json"
    file.write_bytes(file.read_bytes()[:20])
    write_failure(sibling, "b")
    assert not folder.adopt("a")
    assert not folder.adopt("b")
    assert not folder.adopt("c")
    assert not folder.path.exists()


def test_a_sweep_does_not_adopt_from_itself(folder: SweepFolder) -> None:
    write_result(folder, "a")
    assert not folder.adopt("a")
