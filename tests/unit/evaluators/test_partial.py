"""Replies that have settled outlive the process; what cannot be trusted is passed over."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from evaluators import partial
from evaluators.partial import PartialReplies
from evaluators.replies import Reply

REPLIES = [
    Reply("s1:1", 1, "i am tired", "why?", "so\nam I \u2028 é", "irq", None, "Patient: i am"),
    Reply("s1:1", 4, "i am tired", "why?", "", None, "i am tired", None),
    Reply("s2:3", 1, 'a "quote" \\', "☃", "\U0001f600", None, None, "x"),
]
BY_KEY = {(reply.beam, reply.pair_id): reply for reply in REPLIES}


def kept(file: Path, key: str = "k", part: str = "test") -> dict[tuple[int, str], Reply]:
    with closing(PartialReplies(file, key)) as settled:
        return dict(settled.replies(part))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trial" / "replies.partial.jsonl"
    with closing(PartialReplies(path, "k")) as settled:
        settled.add("valid", REPLIES[:1])
        settled.note_batch_size(4)
        settled.add("test", REPLIES)
    return path


def test_the_fields_of_a_reply_are_all_kept() -> None:
    assert partial._TYPES.keys() == {field.name for field in dataclasses.fields(Reply)}


def test_what_was_added_is_there_again(file: Path) -> None:
    assert kept(file) == BY_KEY
    assert kept(file, part="valid") == {(1, "s1:1"): REPLIES[0]}
    with closing(PartialReplies(file, "k")) as settled:
        assert settled.batch_size == 4


def test_nothing_is_written_twice(file: Path) -> None:
    before = file.read_bytes()
    with closing(PartialReplies(file, "k")) as settled:
        settled.add("test", REPLIES)
    assert file.read_bytes() == before


def test_a_file_under_another_key_is_replaced(file: Path) -> None:
    assert kept(file, "other") == {}
    assert file.read_bytes() == b'{"key": "other"}\n'
    assert kept(file) == {}


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    with closing(PartialReplies(None, "k")) as settled:
        settled.add("test", REPLIES)
        settled.note_batch_size(2)
        assert settled.batch_size == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_is_mended(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        with closing(PartialReplies(file, "k")) as settled:
            assert len(settled.replies("test")) == max(0, lines - 3)
            settled.add("valid", REPLIES[:1])
            settled.add("test", REPLIES)
        assert kept(file) == BY_KEY
        for line in file.read_bytes().splitlines():
            json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x00\x00",
        b"\xff\xfe",
        b"{",
        b"[1]",
        b"null",
        b"",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"key": "k"}',
        b'{"eval_batch_size": 0}',
        b'{"eval_batch_size": true}',
        b'{"eval_batch_size": "8"}',
        json.dumps({"part": "test"}).encode(),
        json.dumps({"part": "test", **dataclasses.asdict(REPLIES[2]), "more": 1}).encode(),
        json.dumps({"part": "test", **dataclasses.asdict(REPLIES[2]), "beam": True}).encode(),
        json.dumps({"part": "test", **dataclasses.asdict(REPLIES[2]), "reply": None}).encode(),
        json.dumps({"part": "test", **dataclasses.asdict(REPLIES[2]), "reply": "\ud800"}).encode(),
        json.dumps({"part": ["test"], **dataclasses.asdict(REPLIES[2])}).encode(),
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_a_line_that_nobody_wrote_is_passed_over_and_taken_out(file: Path, line: bytes) -> None:
    good = file.read_bytes()
    first, rest = good.split(b"\n", 1)
    for content in (good + line + b"\n", first + b"\n" + line + b"\n" + rest):
        file.write_bytes(content)
        assert kept(file) == BY_KEY
        assert file.read_bytes() == good


def test_of_two_replies_to_one_prompt_the_last_counts(file: Path) -> None:
    other = dataclasses.replace(REPLIES[2], reply="other")
    with closing(PartialReplies(file, "k")) as settled:
        settled.add("test", [other])
    assert kept(file) == {**BY_KEY, (1, "s2:3"): other}


def test_a_killed_process_loses_nothing_that_it_added(tmp_path: Path) -> None:
    file = tmp_path / "replies.partial.jsonl"
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from evaluators.partial import PartialReplies\nfrom evaluators.replies import Reply\n"
        "settled = PartialReplies(Path(sys.argv[1]), 'k')\n"
        "settled.add('test', [Reply('a:1', 1, 'p', 'r', 'said')])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert kept(file) == {(1, "a:1"): Reply("a:1", 1, "p", "r", "said")}


def test_the_disk_is_asked_now_and_then_not_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, synced = 0.0, 0
    sync = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        sync(descriptor)

    monkeypatch.setattr(partial.time, "monotonic", lambda: clock)
    with closing(PartialReplies(tmp_path / "f", "k")) as settled:
        monkeypatch.setattr(partial.os, "fsync", counted)
        for number in range(100):
            clock += 0.5
            settled.add("test", [Reply(f"s:{number}", 1, "p", "r", "said")])
        assert synced == 10
    assert synced == 11
