"""Replies that have settled, in a file that outlives the process that generated them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

from evaluators.replies import Reply
from search_spaces.atomic import write_atomically

SettledReplies = Mapping[tuple[int, str], Reply]
"""Replies by (beam width, pair id)."""

_SYNC_EVERY_S: Final = 5.0
_BATCH_SIZE: Final = "eval_batch_size"
_TYPES: Final = {
    "pair_id": (str,),
    "beam": (int,),
    "prompt": (str,),
    "reference": (str,),
    "reply": (str,),
    "act": (str, type(None)),
    "scored": (str, type(None)),
    "model_input": (str, type(None)),
    "predicted_act": (str, type(None)),
}
"""What a line holds beside its part; the fields of a reply."""


class PartialReplies:
    """Replies of a trial that is being evaluated, kept as they settle.

    The file holds one JSON object a line: first the key, then a reply each, or a batch size that
    was found to fit. It says nothing about whether a reply is still wanted: `generate` compares.

    ```python
    with closing(PartialReplies(folder / "replies.partial.jsonl", key)) as settled:
        known = settled.replies("test")
        settled.add("test", fresh)
    ```

    Args:
        file: `replies.partial.jsonl` in the trial's folder; absent: nothing is kept.
        key: of the tuned weights and the specification; a file under another key is replaced.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, file: Path | None, key: str) -> None:
        self.batch_size: int | None = None
        """The largest batch that is known to fit, where a larger one did not."""
        self._replies: dict[str, dict[tuple[int, str], Reply]] = {}
        self._stream: IO[bytes] | None = None
        self._synced = time.monotonic()
        if file is None:
            return
        header = _line({"key": key})
        file.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes() if file.exists() else b""
        # What stands behind the last line end was cut off.
        lines = content.split(b"\n")[:-1]
        kept = [header]
        if lines[:1] == [header.removesuffix(b"\n")]:
            kept += [line + b"\n" for line in lines[1:] if self._take(line)]
        whole = b"".join(kept)
        if whole != content:
            write_atomically(file, whole)
        self._stream = file.open("ab")

    def replies(self, part: str) -> SettledReplies:
        """The replies of a part that have settled.

        Args:
            part: `valid` or `test`.
        """
        return dict(self._replies.get(part, {}))

    def add(self, part: str, replies: Sequence[Reply]) -> None:
        """Keep replies; those that are kept already are passed over.

        Args:
            part: `valid` or `test`.
            replies: as they settle.

        Raises:
            OSError: the disk is full, say; the file is whole again once it is opened again.
        """
        kept = self._replies.setdefault(part, {})
        fresh = [reply for reply in replies if kept.get((reply.beam, reply.pair_id)) != reply]
        kept.update(((reply.beam, reply.pair_id), reply) for reply in fresh)
        self._write([{"part": part, **asdict(reply)} for reply in fresh])

    def note_batch_size(self, prompts: int) -> None:
        """Keep the size of batch that fits, so that a rerun does not try larger ones.

        Args:
            prompts: decoded together.
        """
        self.batch_size = prompts
        self._write([{_BATCH_SIZE: prompts}])

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        if self._stream is not None:
            with self._stream:
                self._sync()
            self._stream = None

    def _take(self, line: bytes) -> bool:
        """Take in one line; whether it is one that this class could have written."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(record, dict):
            return False
        if record.keys() == {_BATCH_SIZE}:
            size = record[_BATCH_SIZE]
            if type(size) is not int or size < 1:
                return False
            self.batch_size = size
            return True
        part = record.pop("part", None)
        if not isinstance(part, str) or record.keys() != _TYPES.keys():
            return False
        if any(type(record[name]) not in types for name, types in _TYPES.items()):
            return False
        if any("\ud800" <= letter <= "\udfff" for letter in record["reply"]):
            return False  # Half a character, which no tokenizer decodes to.
        reply = Reply(**record)
        # Of several, the last counts: it was added because the others were not wanted.
        self._replies.setdefault(part, {})[reply.beam, reply.pair_id] = reply
        return True

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        if self._stream is None or not records:
            return
        self._stream.write(b"".join(_line(record) for record in records))
        self._stream.flush()
        # A killed process loses nothing that was flushed; a machine loses a few seconds.
        if time.monotonic() - self._synced >= _SYNC_EVERY_S:
            self._sync()

    def _sync(self) -> None:
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()


def _line(record: Mapping[str, Any]) -> bytes:
    """One line in ASCII: no text in it can end a line or be cut inside a character."""
    return json.dumps(record).encode("ascii") + b"\n"
