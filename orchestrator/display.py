"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.events import (
    TrialDone,
    TrialEvent,
    TrialFailed,
    TrialProgressed,
    TrialStarted,
    TrialStopped,
    TrialStoppedEarly,
    WorkerDied,
)
from search_spaces.controls import escape_controls
from search_spaces.secrets import hide_secrets

_SHOWN_RUNNING = 12
_TOLD = (TrialDone, TrialFailed, TrialStoppedEarly, WorkerDied)
"""Events that leave a line."""


@dataclass
class RunningTrial:
    """A trial in a worker's hands."""

    name: str
    started: float
    together: int = 1
    """Trials that share its worker."""
    step: int = 0
    total_steps: int = 0
    train_loss: float | None = None
    valid_loss: float | None = None


@dataclass
class Progress:
    """How far a stage is; changed by events only."""

    stage: str
    names: Mapping[str, str]
    """Names of the trials to run, by id."""
    done_before: int = 0
    """Trials that needed no running."""
    slots: int = 1
    """Trials that run at once."""
    running: dict[str, RunningTrial] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    stopped_early: int = 0
    last: str = ""
    began: float = field(default_factory=time.monotonic)

    def take(self, event: TrialEvent) -> None:
        """Change by an event."""
        now = time.monotonic()
        name = self.names[event.trial_id]
        match event:
            case TrialStarted():
                self.running[event.trial_id] = RunningTrial(name, now, event.together)
            case TrialProgressed():
                trial = self.running.setdefault(event.trial_id, RunningTrial(name, now))
                trial.step, trial.total_steps = event.step, event.total_steps
                trial.train_loss, trial.valid_loss = event.train_loss, event.valid_loss
            case TrialDone():
                self.running.pop(event.trial_id, None)
                self.done += 1
                score = event.result["scores"].get("test/rouge1_beam1")
                shown = "" if score is None else f", ROUGE-1 {score:.2f}"
                self.last = f"{name}: done in {event.result['cost']['seconds']:.0f} s{shown}"
            case TrialFailed():
                self.running.pop(event.trial_id, None)
                self.failed += 1
                self.last = f"{name}: failed ({event.reason}): {event.message}"
            case TrialStopped():
                self.running.pop(event.trial_id, None)
            case TrialStoppedEarly():
                self.running.pop(event.trial_id, None)
                self.stopped_early += 1
                self.last = f"{name}: stopped early"
            case WorkerDied():
                self.running.pop(event.trial_id, None)
                self.last = f"{name}: its worker died; going on in another one"

    @property
    def ended(self) -> int:
        """Trials that are over, however they ended."""
        return self.done + self.failed + self.stopped_early

    def seconds_left(self) -> float | None:
        """Estimate from the trials that ended so far; None before the first has."""
        ended = self.ended
        if not ended:
            return None
        now = time.monotonic()
        under_way = sum((now - t.started) / t.together for t in self.running.values())
        per_trial = (
            max((now - self.began) * min(self.slots, len(self.names)) - under_way, 0) / ended
        )
        left = len(self.names) - ended
        return max(per_trial * left - under_way, 0) / max(min(self.slots, left), 1)


class Display(Protocol):
    """Shows a sweep's progress."""

    def say(self, line: str) -> None:
        """Show a line that stays."""
        ...

    def stage(self, progress: Progress) -> None:
        """Begin to show a stage."""
        ...

    def changed(self, event: TrialEvent) -> None:
        """The stage's progress took an event."""
        ...

    def close(self) -> None:
        """Stop showing."""
        ...


class PlainDisplay:
    """A line an event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self.console.print(shown_line(line), markup=False, highlight=False, soft_wrap=True)

    def stage(self, progress: Progress) -> None:
        """Begin to show a stage."""
        self.progress = progress

    def changed(self, event: TrialEvent) -> None:
        """Print a trial's end, with the count."""
        progress = self.progress
        if progress is None or not isinstance(event, _TOLD):
            return
        ended = progress.ended
        left = _duration(progress.seconds_left())
        self.say(f"[{progress.stage} {ended}/{len(progress.names)}] {progress.last} ({left} left)")

    def close(self) -> None:
        """Nothing stays open."""


class LiveDisplay:
    """A table that redraws itself, for terminals."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=2,
            transient=True,
            # What libraries print is not ours to decorate; it goes where they send it.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.live.start()

    def say(self, line: str) -> None:
        """Show a line that stays, above the table."""
        self.live.console.print(shown_line(line), markup=False, highlight=False, soft_wrap=True)

    def stage(self, progress: Progress) -> None:
        """Begin to show a stage."""
        self.progress = progress

    def changed(self, event: TrialEvent) -> None:
        """Keep a line for every trial that ended; the table shows the rest."""
        if self.progress is not None and isinstance(event, _TOLD):
            self.say(self.progress.last)

    def close(self) -> None:
        """Take the table away."""
        self.live.stop()

    def _render(self) -> RenderableType:
        progress = self.progress
        if progress is None:
            return Text("")
        table = Table(expand=False, pad_edge=False)
        for title in ("running", "step", "train loss", "valid loss", "time"):
            table.add_column(title, justify="left" if title == "running" else "right")
        now = time.monotonic()
        # The dictionary is changed by another thread: a copy is drawn.
        for trial in list(progress.running.values())[:_SHOWN_RUNNING]:
            table.add_row(
                escape(shown_line(trial.name)),
                f"{trial.step}/{trial.total_steps}" if trial.total_steps else "",
                _loss(trial.train_loss),
                _loss(trial.valid_loss),
                _duration(now - trial.started),
            )
        ended = progress.ended
        waiting = len(progress.names) - ended - len(progress.running)
        head = Text(
            f"{progress.stage}: {progress.done} done, {len(progress.running)} running, "
            f"{progress.failed} failed, {waiting} waiting"
            + (f", {progress.stopped_early} stopped early" if progress.stopped_early else "")
            + (f", {progress.done_before} from before" if progress.done_before else "")
            + f"; {_duration(progress.seconds_left())} left"
        )
        return Group(head, table)


class _Watched:
    """A stream that people watch: a terminal that was closed, or a pipe without reader, ends no sweep."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def make_display(stream: TextIO) -> Display:
    """The display that suits where output goes.

    Args:
        stream: standard error.
    """
    console = Console(file=cast(TextIO, _Watched(stream)))
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


def shown_line(line: str) -> str:
    """A line for people: without secrets, and without characters that a terminal would obey."""
    return escape_controls(hide_secrets(line))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
