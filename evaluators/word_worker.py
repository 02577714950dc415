"""ROUGE and METEOR in a process of their own, while the model generates in this one.

A thread would not do: Python code that computes holds the interpreter lock for milliseconds at a
time, and generation asks for it at every operation. The process is a plain child that reads JSON
lines and answers each with one; it ends with its input, so a killed parent leaves none behind. This
side never waits for a pipe, so that neither a child that died nor one that hangs can hold it up.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from typing import IO, Final

from evaluators.metrics import WordMetrics
from evaluators.stopping import stop_if_asked
from trainers.progress import ShouldStop, never

ScoredPair = tuple[str, str]
"""Scored text and reference."""

_TICK_S: Final = 0.1
_QUIET_S: Final = 300.0
"""A child that has not answered for so long is given up; a pair takes milliseconds."""
_RESTARTS: Final = 1
_PIPE_BYTES: Final = 1 << 16
_SLICE: Final = 16
"""Pairs that are scored here between two questions whether to stop."""


class WordWorker:
    """A child process that scores words; started by the first pair, good for many trials."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[ScoredPair, None] = {}
        """Pairs without an answer, in the order in which the child gets them."""
        self._known: dict[ScoredPair, dict[str, float]] = {}
        self._unsent = b""
        self._unread = b""
        """The beginning of an answer."""
        self._own: WordMetrics | None = None

    def add(self, pairs: Sequence[ScoredPair]) -> None:
        """Have pairs scored in the background; equal pairs are scored once.

        Args:
            pairs: scored text and reference of each.
        """
        fresh = dict.fromkeys(
            pair for pair in pairs if pair not in self._waiting and pair not in self._known
        )
        self._waiting.update(fresh)
        if self._process is None:
            self._begin()
        else:
            self._unsent += _lines(fresh)
        before = -1
        # What the child does not take now goes with the next pairs, or when all are collected.
        while self._unsent and len(self._unsent) != before:
            before = len(self._unsent)
            self._pump(0.0)

    def collect(
        self, pairs: Sequence[ScoredPair], should_stop: ShouldStop = never
    ) -> list[dict[str, float]]:
        """ROUGE and METEOR of pairs, once all are scored; forgets every pair added so far.

        A child that has died or hangs is started again once; what a second one leaves unanswered
        is scored here: the numbers are the same.

        Args:
            pairs: scored text and reference of each, whether added before or not.
            should_stop: asked ten times a second or more.

        Raises:
            EvaluationError: WordNet is not here.
            StoppedError: `should_stop` said so.
        """
        wanted = dict.fromkeys(pairs)
        restarts, heard = 0, time.monotonic()
        while self._waiting and not wanted.keys() <= self._known.keys():
            stop_if_asked(should_stop)
            answered = len(self._known)
            lives = self._pump(_TICK_S)
            if len(self._known) > answered:
                heard = time.monotonic()
            if lives and time.monotonic() - heard < _QUIET_S:
                continue
            self.close()
            if restarts == _RESTARTS:
                self._waiting.clear()
            else:
                restarts, heard = restarts + 1, time.monotonic()
                self._begin()
        missing = [pair for pair in wanted if pair not in self._known]
        for start in range(0, len(missing), _SLICE):
            stop_if_asked(should_stop)
            if self._own is None:
                self._own = WordMetrics()
            some = missing[start : start + _SLICE]
            replies, references = zip(*some, strict=True)
            self._known.update(zip(some, self._own.score(replies, references), strict=True))
        rows = [self._known[pair] for pair in pairs]
        self._known = {}
        return rows

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._process, self._unsent, self._unread = None, b"", b""

    def _begin(self) -> None:
        """Start the process and have it score everything that has no answer."""
        self._process = _start()
        self._unsent, self._unread = _lines(self._waiting), b""

    def _pump(self, wait_s: float) -> bool:
        """Send what the child takes and read what it has answered; False where it has died.

        Args:
            wait_s: longest time to wait until it does either.
        """
        if self._process is None:
            return False
        questions, answers = _pipes(self._process)
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            if self._unsent:
                selector.register(questions, selectors.EVENT_WRITE)
            ready = {key.fileobj for key, _ in selector.select(wait_s)}
        if answers in ready:
            read = os.read(answers.fileno(), _PIPE_BYTES)
            *lines, self._unread = (self._unread + read).split(b"\n")
            for line in lines:
                pair = next(iter(self._waiting))
                self._known[pair] = json.loads(line)
                del self._waiting[pair]
            if not read:
                return False
        if questions in ready:
            try:
                sent = os.write(questions.fileno(), self._unsent[:_PIPE_BYTES])
            except BrokenPipeError:
                return False
            self._unsent = self._unsent[sent:]
        return True


def _lines(pairs: Iterable[ScoredPair]) -> bytes:
    return "".join(json.dumps(pair) + "\n" for pair in pairs).encode("ascii")


def _start() -> subprocess.Popen[bytes]:
    # The child finds this package where the parent did, and leaves the other cores to it.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", "evaluators.word_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    os.set_blocking(_pipes(process)[0].fileno(), False)
    return process


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None  # `_start` asked for both pipes
    assert process.stdout is not None
    return process.stdin, process.stdout


def _listen(lines: IO[str], queue: SimpleQueue[str]) -> None:
    """Take in what the parent writes, and end with the parent, whatever is being scored."""
    for line in lines:
        queue.put(line)
    os._exit(0)  # Nobody is left to answer.


def _serve() -> None:
    queue: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, queue), daemon=True).start()
    metrics = WordMetrics()
    while True:
        reply, reference = json.loads(queue.get())
        (row,) = metrics.score([reply], [reference])
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
