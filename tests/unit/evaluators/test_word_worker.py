from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import cache

import pytest

from evaluators import word_worker
from evaluators.metrics import WordMetrics
from evaluators.word_worker import WordWorker
from trainers.errors import StoppedError

pytestmark = pytest.mark.usefixtures("wordnet")

PAIRS = [(f"i feel {word} today\n", f"why do you feel {word} ?") for word in ("sad", "glad", "é☃")]


@cache
def words() -> WordMetrics:
    return WordMetrics()


def here() -> list[dict[str, float]]:
    replies, references = zip(*PAIRS, strict=True)
    return words().score(replies, references)


def test_the_process_gives_what_this_one_would() -> None:
    with closing(WordWorker()) as worker:
        worker.add(PAIRS[:1])
        worker.add([PAIRS[2], PAIRS[0]])
        assert worker.collect(PAIRS) == here()
        worker.add(PAIRS)
        assert worker.collect([*PAIRS, PAIRS[0]]) == [*here(), here()[0]]


def test_without_additions_no_process_is_started() -> None:
    worker = WordWorker()
    assert worker.collect(PAIRS) == here()
    assert worker._process is None


def test_a_killed_process_is_made_good() -> None:
    with closing(WordWorker()) as worker:
        worker.add(PAIRS[:2])
        process = worker._process
        assert process is not None
        process.kill()
        process.wait()
        worker.add(PAIRS[2:])
        assert worker.collect(PAIRS) == here()
        worker.add(PAIRS)
        assert worker._process is not None
        assert worker._process.poll() is None


def test_a_process_that_is_killed_while_it_scores_is_started_again_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [(f"reply {number} {'word ' * 60}", "a word about it") for number in range(60)]
    started: list[subprocess.Popen[bytes]] = []
    start, pump = word_worker._start, WordWorker._pump

    def watched() -> subprocess.Popen[bytes]:
        started.append(start())
        return started[-1]

    def deadly(self: WordWorker, wait_s: float) -> bool:
        lives = pump(self, wait_s)
        process = started[-1]
        if self._known and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        return lives

    monkeypatch.setattr(word_worker, "_start", watched)
    with closing(WordWorker()) as worker:
        monkeypatch.setattr(WordWorker, "_pump", deadly)
        worker.add(pairs[:50])
        found = worker.collect(pairs)
        assert found == words().score(*zip(*pairs, strict=True))
        assert len(started) == 2, "a second death is not answered with a third process"
        monkeypatch.setattr(WordWorker, "_pump", pump)
        worker.add(PAIRS)
        assert worker.collect(PAIRS) == here()
    assert all(process.poll() is not None for process in started)


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_worker, "_QUIET_S", 0.5)
    start = word_worker._start

    def stopped() -> subprocess.Popen[bytes]:
        process = start()
        os.kill(process.pid, signal.SIGSTOP)
        return process

    monkeypatch.setattr(word_worker, "_start", stopped)
    # More than the pipe takes: adding must not wait for the child either.
    long = [(f"{number} {'word ' * 600}", "reference") for number in range(60)]
    with closing(WordWorker()) as worker:
        worker.add(long)
        worker.add(PAIRS)
        assert worker.collect(PAIRS) == here()


def test_collecting_can_be_stopped_and_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(WordWorker()) as worker:
        worker.add(PAIRS)
        with pytest.raises(StoppedError):
            worker.collect(PAIRS, lambda: True)
        assert worker.collect([PAIRS[2]]) == here()[2:]
        worker.add(PAIRS[:1])
        assert worker.collect(PAIRS) == here()
    with pytest.raises(StoppedError):
        WordWorker().collect(PAIRS, lambda: True)


def test_adding_does_not_wait_for_scoring() -> None:
    with closing(WordWorker()) as worker:
        worker.add(PAIRS[:1])
        start = time.perf_counter()
        worker.add([(f"reply {number} " * 50, "reference") for number in range(400)])
        assert time.perf_counter() - start < 2.0
        process = worker._process
    assert process is not None
    assert process.poll() is not None


def test_a_killed_parent_leaves_no_process_behind() -> None:
    code = (
        "from evaluators.word_worker import WordWorker\n"
        "import os\n"
        "worker = WordWorker(); worker.add([('a', 'b')])\n"
        "print(worker._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            if stat.read().split()[2] == "Z":
                return  # ended; nobody has asked for its exit status
        time.sleep(0.1)
    pytest.fail(f"process {pid} still runs")
