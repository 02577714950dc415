"""ROUGE and METEOR in a process of their own, while the model generates in this one.

A thread would not do: Python code that computes holds the interpreter lock for milliseconds at a
time, and generation asks for it at every operation. The process is a plain child that reads JSON
lines and writes JSON lines when asked; it ends with its input, so a killed parent leaves none behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import IO

from evaluators.metrics import WordMetrics

ScoredPair = tuple[str, str]
"""Scored text and reference."""

_COLLECT = "null\n"
"""The line that asks for everything scored since the last such line, in the order it was sent."""


class WordWorker:
    """A child process that scores words; started by the first pair, good for many trials."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._sent: dict[ScoredPair, None] = {}
        self._own: WordMetrics | None = None

    def add(self, pairs: Sequence[ScoredPair]) -> None:
        """Have pairs scored in the background; equal pairs are scored once.

        Args:
            pairs: scored text and reference of each.
        """
        fresh = [pair for pair in dict.fromkeys(pairs) if pair not in self._sent]
        self._sent.update(dict.fromkeys(fresh))
        self._write("".join(json.dumps(pair) + "\n" for pair in fresh))

    def collect(self, pairs: Sequence[ScoredPair]) -> list[dict[str, float]]:
        """ROUGE and METEOR of pairs, once all are scored; forgets every pair added so far.

        What a lost process leaves unanswered is scored here: the numbers are the same.

        Args:
            pairs: scored text and reference of each, whether added before or not.
        """
        sent, self._sent = list(self._sent), {}
        known = dict(zip(sent, self._read(len(sent)), strict=False))
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        if missing:
            if self._own is None:
                self._own = WordMetrics()
            replies, references = zip(*missing, strict=True)
            known.update(zip(missing, self._own.score(replies, references), strict=True))
        return [known[pair] for pair in pairs]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _write(self, lines: str) -> None:
        if self._process is None:
            self._process = _start()
        assert self._process.stdin is not None  # a pipe, see `_start`
        try:
            self._process.stdin.write(lines)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has died: `_read` finds fewer answers than questions.

    def _read(self, count: int) -> list[dict[str, float]]:
        """The answers to the last `count` pairs, fewer where the process has died."""
        if not count or self._process is None:
            return []
        self._write(_COLLECT)
        assert self._process.stdout is not None  # a pipe, see `_start`
        rows: list[dict[str, float]] = []
        while len(rows) < count and (line := self._process.stdout.readline()).endswith("\n"):
            rows.append(json.loads(line))
        if len(rows) < count:
            self.close()
        return rows

    def __enter__(self) -> WordWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _start() -> subprocess.Popen[str]:
    # The child finds this package where the parent did, and leaves the other cores to it.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "evaluators.word_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="ascii",
        env=environment | {"OMP_NUM_THREADS": "1"},
    )


def _listen(lines: IO[str], queue: SimpleQueue[str]) -> None:
    """Take in what the parent writes at once, so that it never waits for the scoring."""
    for line in lines:
        queue.put(line)
    os._exit(0)  # Nobody is left to ask.


def _serve() -> None:
    queue: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, queue), daemon=True).start()
    metrics = WordMetrics()
    rows: list[dict[str, float]] = []
    while True:
        line = queue.get()
        if line == _COLLECT:
            sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
            sys.stdout.flush()
            rows = []
        else:
            reply, reference = json.loads(line)
            rows += metrics.score([reply], [reference])


if __name__ == "__main__":
    _serve()
