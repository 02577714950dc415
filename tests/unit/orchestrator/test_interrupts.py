"""Signals: asked once, asked twice, told to wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from orchestrator.interrupts import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    asked = []
    before = signal.getsignal(number)
    with interrupts() as answer:
        with answer.asking(lambda: asked.append(1)):
            os.kill(os.getpid(), number)
            assert asked == [1]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with answer.ignored():
            os.kill(os.getpid(), number)
    assert asked == [1]
    assert signal.getsignal(number) is before


def test_what_was_told_not_to_listen_does_not() -> None:
    code = (
        "import os, signal\n"
        "from orchestrator.interrupts import interrupts\n"
        "with interrupts():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('alive')\n"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
