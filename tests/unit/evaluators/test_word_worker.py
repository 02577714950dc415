from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from evaluators.metrics import WordMetrics
from evaluators.word_worker import WordWorker

pytestmark = pytest.mark.usefixtures("wordnet")

PAIRS = [(f"i feel {word} today\n", f"why do you feel {word} ?") for word in ("sad", "glad", "é☃")]


def here() -> list[dict[str, float]]:
    replies, references = zip(*PAIRS, strict=True)
    return WordMetrics().score(replies, references)


def test_the_process_gives_what_this_one_would() -> None:
    with WordWorker() as worker:
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
    with WordWorker() as worker:
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


def test_adding_does_not_wait_for_scoring() -> None:
    with WordWorker() as worker:
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
