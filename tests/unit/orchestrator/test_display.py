"""What a person sees while a sweep runs."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
import time

import pytest
from rich.console import Console

from orchestrator.display import LiveDisplay, PlainDisplay, Progress, _duration, make_display
from orchestrator.events import TrialDone, TrialFailed, TrialProgressed, TrialStarted

NAMES = {letter: f"tiny_sft_{letter}" for letter in "abcdef"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def done(trial: str, seconds: float = 3.0, rouge1: float | None = 12.345) -> TrialDone:
    scores = {} if rouge1 is None else {"test/rouge1_beam1": rouge1}
    return TrialDone(trial, {"scores": scores, "cost": {"seconds": seconds}})


def progress(clock: Clock, names: str = "abcdef", slots: int = 2) -> Progress:
    return Progress("first", {n: NAMES[n] for n in names}, slots=slots, began=clock.now)


def test_a_trial_goes_from_waiting_to_running_to_done(clock: Clock) -> None:
    one = progress(clock)
    one.take(TrialStarted("a"))
    assert one.running["a"].name == "tiny_sft_a"
    one.take(TrialProgressed("a", 1.0, 5, 10, 2.5, 3.5))
    trial = one.running["a"]
    assert (trial.step, trial.total_steps, trial.train_loss, trial.valid_loss) == (5, 10, 2.5, 3.5)
    one.take(done("a"))
    assert (one.done, one.failed, one.running) == (1, 0, {})
    assert one.last == "tiny_sft_a: done in 3 s, ROUGE-1 12.35"


def test_a_failure_is_counted_apart_with_its_reason(clock: Clock) -> None:
    one = progress(clock)
    one.take(TrialStarted("a"))
    one.take(TrialFailed("a", "diverged", "loss is NaN at step 3"))
    assert (one.done, one.failed, one.running) == (0, 1, {})
    assert one.last == "tiny_sft_a: failed (diverged): loss is NaN at step 3"


def test_events_of_a_trial_that_is_started_again_do_no_harm(clock: Clock) -> None:
    one = progress(clock)
    one.take(TrialProgressed("a", 1.0, 5, 10, None, 3.5))  # Its start was not seen.
    one.take(TrialStarted("a"))
    assert one.running["a"].step == 0
    one.take(done("a", rouge1=None))
    assert one.last == "tiny_sft_a: done in 3 s"


def test_nothing_is_known_of_the_time_before_the_first_end(clock: Clock) -> None:
    one = progress(clock)
    one.take(TrialStarted("a"))
    clock.now += 50
    assert one.seconds_left() is None


def test_time_left_is_that_of_the_waiting_over_the_slots(clock: Clock) -> None:
    one = progress(clock, slots=2)
    for trial in "ab":
        one.take(TrialStarted(trial))
    clock.now += 30
    for trial in "ab":
        one.take(done(trial))
    # Two ended in 30 s side by side; four are left, two at once.
    assert one.seconds_left() == pytest.approx(60)
    for trial in "cd":
        one.take(TrialStarted(trial))
    clock.now += 10
    assert one.seconds_left() == pytest.approx(50)


def test_time_left_ends_at_zero_and_never_goes_below(clock: Clock) -> None:
    one = progress(clock, "ab", slots=8)
    for trial in "ab":
        one.take(TrialStarted(trial))
    clock.now += 10
    one.take(done("a"))
    clock.now += 100  # The other one takes far longer.
    assert one.seconds_left() == 0
    one.take(TrialFailed("b", "error", "x"))
    assert one.seconds_left() == 0


def test_a_sweep_without_slots_to_fill_does_not_divide_by_zero(clock: Clock) -> None:
    one = progress(clock, "a", slots=1)
    one.take(TrialStarted("a"))
    one.take(done("a"))
    assert one.seconds_left() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown time"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_durations_read(seconds: float | None, text: str) -> None:
    assert _duration(seconds) == text


def test_plain_lines_for_logs(clock: Clock) -> None:
    stream = io.StringIO()
    display = make_display(stream)
    assert isinstance(display, PlainDisplay)
    display.changed(done("a"))  # Before a stage there is nothing to show.
    one = progress(clock)
    display.stage(one)
    for event in (TrialStarted("a"), TrialProgressed("a", 1, 1, 2, None, 1.0), done("a")):
        one.take(event)
        display.changed(event)
    display.say("[bold]kept as it is[/bold] " + "x" * 60)
    display.close()
    assert stream.getvalue().splitlines() == [
        "[first 1/6] tiny_sft_a: done in 3 s, ROUGE-1 12.35 (0 s left)",
        "[bold]kept as it is[/bold] " + "x" * 60,
    ]


def test_a_live_table_for_terminals(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = LiveDisplay(console)
    try:
        one = Progress(
            "first", {**NAMES, "z": "odd[/bold]name"}, done_before=2, slots=2, began=clock.now
        )
        display.stage(one)
        events = (
            TrialStarted("a"),
            done("a"),
            TrialStarted("z"),
            TrialProgressed("z", 1.0, 7, 9, 1.25, 2.0),
            TrialStarted("b"),
            TrialFailed("b", "error", "a [red]message[/red]"),
        )
        for event in events:
            one.take(event)
            display.changed(event)
        page = Console(file=io.StringIO(), width=100)
        page.print(display._render())
        shown = page.file.getvalue()  # type: ignore[attr-defined]
    finally:
        display.close()
    assert "first: 1 done, 1 running, 1 failed, 4 waiting, 2 from before" in shown
    assert "odd[/bold]name" in shown
    assert "7/9" in shown
    assert "1.250" in shown
    assert "a [red]message[/red]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_that_is_gone_ends_no_sweep(terminal: bool) -> None:
    class Terminal(io.StringIO):
        gone = False

        def isatty(self) -> bool:
            return terminal

        def write(self, text: str) -> int:
            if self.gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

        def flush(self) -> None:
            if self.gone:
                raise BrokenPipeError

    stream = Terminal()
    display = make_display(stream)
    assert isinstance(display, LiveDisplay if terminal else PlainDisplay)
    display.say("one")
    stream.gone = True
    display.say("two")
    display.close()
    assert "one" in stream.getvalue()
    assert "two" not in stream.getvalue()


def test_a_reader_that_is_gone_ends_no_sweep() -> None:
    code = (
        "from orchestrator.display import make_display\n"
        "import sys\n"
        "display = make_display(sys.stderr)\n"
        "for number in range(2000):\n"
        "    display.say('x' * 100)\n"
        "print('went on')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout.read() == "went on\n"
    process.stdout.close()
    process.wait()
