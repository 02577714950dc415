"""The thread against a store that is scripted: what is waited for, for how long, and what is said."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import tracking_thread
from orchestrator.events import TrialDone, TrialProgressed, TrialStarted, TrialStopped
from orchestrator.storage import SweepFolder
from orchestrator.tracking_thread import TrackingThread
from reports.tracking_pulse import Pulse
from reports.tracking_store import TrackingError
from reports.write import ReportPaths
from search_spaces.errors import one_problem
from tests.tracked_sweep import Lines, plan_of
from tests.unit.reports.sweep_builder import trial_id, write_grid
from tests.unit.reports.tracked_runs import keep_few

REPORT = ReportPaths(Path("index.html"), {}, ())
ONE, NINE = trial_id(1), trial_id(9)


class Store:
    """In the place of the tracker: notes what it is asked, and fails or waits as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.answer: Callable[[str], None] = lambda name: None
        self.pulse = Pulse()
        self.delivered: set[str] = set()

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            self.pulse.beat()
            self.answer(name)
            self.calls.append((name, args))

        return call


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(keep_few(write_grid(tmp_path / "runs" / "paper_grid")))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()

    def made(_store: object, _sweep: str, pulse: Pulse) -> Store:
        store.pulse = pulse
        return store

    monkeypatch.setattr(tracking_thread, "Tracker", made)
    monkeypatch.setattr(tracking_thread, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(tracking_thread, "_LAST_PAUSES_S", (0.0, 0.05, 0.1))
    monkeypatch.setattr(tracking_thread, "_END_QUIET_S", 0.6)
    monkeypatch.setattr(tracking_thread, "_INTERRUPT_QUIET_S", 0.4)
    monkeypatch.setattr(tracking_thread, "_GRACE_S", 0.2)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    return store


@pytest.fixture
def display() -> Lines:
    return Lines()


@pytest.fixture
def thread(folder: SweepFolder, store: Store, display: Lines) -> Iterator[TrackingThread]:
    thread = TrackingThread(folder, plan_of(folder.path), display)  # type: ignore[arg-type]
    yield thread
    thread.close()


def refuse(name: str) -> None:
    raise TrackingError(one_problem("MLflow", "http://host", f"connection refused in {name}"))


def wait_until(holds: Callable[[], bool], within_s: float = 5) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def record(folder: SweepFolder) -> dict[str, Any]:
    return json.loads((folder.path / "tracking.json").read_text())


def test_a_sweep_without_trouble(
    folder: SweepFolder, store: Store, display: Lines, thread: TrackingThread
) -> None:
    wait_until(lambda: "reconcile" in store.names())  # at the start already
    for event in (TrialStarted(ONE), TrialProgressed(ONE, 1, 10, 40, None, 3.0), TrialStopped(ONE)):
        thread.take(event)
    wait_until(lambda: "stop_trial" in store.names())
    thread.finish(REPORT)
    assert store.names() == [
        "ensure_store", "start_sweep", "reconcile", "start_trial", "log_progress", "stop_trial",
        "reconcile", "log_report", "finish_sweep",
    ]  # fmt: skip
    assert display.said == []
    assert record(folder) == {"uri": thread.store.shown, "delivered": True, "reason": None}


def test_an_outage_is_said_once_and_what_was_missed_is_brought(
    folder: SweepFolder, store: Store, display: Lines, thread: TrackingThread
) -> None:
    wait_until(lambda: "reconcile" in store.names())
    store.answer = refuse
    began = time.monotonic()
    for step in range(200):
        thread.take(TrialStarted(ONE))
        thread.take(TrialProgressed(ONE, 1, step, 200, 2.0, 3.0))
    thread.take(TrialStarted(NINE))
    thread.take(TrialProgressed(NINE, 1, 7, 200, 2.0, 3.0))
    thread.take(TrialDone(ONE, {}))
    assert time.monotonic() - began < 1
    wait_until(lambda: display.count("cannot be written") == 1 and thread.pause_s > 0.2)
    assert record(folder)["delivered"] is False
    assert "connection refused" in record(folder)["reason"]
    store.calls.clear()
    store.answer = lambda name: None
    wait_until(lambda: display.count("answers again") == 1)
    assert store.names()[:3] == ["ensure_store", "start_sweep", "reconcile"]
    running = store.calls[2][1][1]
    assert set(running) == {NINE}
    assert [c for c in store.calls if c[0] == "log_progress"] == [
        ("log_progress", (NINE, {"valid/loss": 3.0, "train/loss": 2.0}, 7))
    ]
    thread.finish(REPORT)
    assert len(display.said) == 2
    assert record(folder)["delivered"] is True


def test_a_store_that_stays_away_costs_a_bounded_time_and_a_clear_line(
    folder: SweepFolder, store: Store, display: Lines, thread: TrackingThread
) -> None:
    store.answer = refuse
    began = time.monotonic()
    thread.finish(REPORT)
    assert time.monotonic() - began < 3
    (line,) = [line for line in display.said if "may lack" in line]
    assert "3 of 3 results and the report" in line
    assert "connection refused" in line
    assert "the same command" in line
    assert record(folder)["delivered"] is False


@pytest.mark.parametrize("end", ["finish", "interrupt", "close"])
def test_a_store_that_hangs_is_given_up(
    folder: SweepFolder, store: Store, display: Lines, thread: TrackingThread, end: str
) -> None:
    release = threading.Event()
    store.answer = lambda name: release.wait(30) and None
    began = time.monotonic()
    thread.finish(REPORT) if end == "finish" else getattr(thread, end)()
    thread.close()
    assert time.monotonic() - began < 3
    assert display.count("may lack") == 1
    assert "no answer for" in record(folder)["reason"]
    before = len(store.names())
    release.set()
    wait_until(thread.ended.is_set)
    # The late answer changes nothing any more, and no further request was made.
    assert "no answer for" in record(folder)["reason"]
    assert len(store.names()) <= before + 1


def test_a_store_that_is_slow_but_answers_is_waited_for(
    folder: SweepFolder, store: Store, thread: TrackingThread
) -> None:
    store.answer = lambda name: time.sleep(0.25)  # one alone is within what the end waits for
    began = time.monotonic()
    thread.finish(REPORT)
    assert time.monotonic() - began > 0.7
    assert record(folder)["delivered"] is True


def test_ctrl_c_while_waiting_for_the_store_ends_at_once(
    folder: SweepFolder,
    store: Store,
    display: Lines,
    thread: TrackingThread,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking_thread, "_END_QUIET_S", 60.0)
    monkeypatch.setattr(tracking_thread, "_TOLD_AFTER_S", 0.1)
    release = threading.Event()
    store.answer = lambda name: release.wait(30) and None

    def interrupted(line: str) -> None:
        display.said.append(line)
        if "waiting for MLflow" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(display, "say", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.finish(REPORT)
    began = time.monotonic()
    thread.close()
    assert time.monotonic() - began < 1
    assert "nobody waited" in record(folder)["reason"]
    release.set()


def test_an_error_that_nobody_foresaw_is_shown_and_the_thread_lives_on(
    folder: SweepFolder, store: Store, display: Lines, thread: TrackingThread
) -> None:
    wait_until(lambda: "reconcile" in store.names())

    def break_once(name: str) -> None:
        store.answer = lambda name: None
        raise KeyError("http://me:hunter2@host")

    store.answer = break_once
    thread.take(TrialStarted(ONE))
    wait_until(lambda: display.count("answers again") == 1)
    assert "unexpected KeyError" in display.said[0]
    assert "hunter2" not in "".join(display.said)
    thread.finish(REPORT)
    assert record(folder)["delivered"] is True


def test_a_display_that_breaks_does_not_make_the_end_wait(
    store: Store, thread: TrackingThread, display: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError

    with monkeypatch.context() as patched:
        patched.setattr(display, "say", broken)
        store.answer = refuse
        thread.take(TrialStarted(ONE))
        wait_until(thread.ended.is_set)
    thread.finish(REPORT)
    assert display.count("unexpected BrokenPipeError") == 1


def test_a_full_disk_is_said_and_harms_nothing(
    folder: SweepFolder,
    store: Store,
    display: Lines,
    thread: TrackingThread,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_until(lambda: "reconcile" in store.names())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracking_thread, "write_delivery", full)
    thread.finish(REPORT)
    assert "finish_sweep" in store.names()
    assert display.count("No space left on device") == 1


def test_the_user_may_ask_for_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    assert tracking_thread._patience_s() == 25
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    assert tracking_thread._patience_s() == 125


def test_libraries_are_quiet_in_the_thread_only(
    thread: TrackingThread, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("urllib3.connectionpool")
    ours = threading.Thread(target=logger.warning, args=("Retrying",), name="mlflow")
    other = threading.Thread(target=logger.warning, args=("elsewhere",))
    for one in (ours, other):
        one.start()
        one.join()
    assert caplog.messages == ["elsewhere"]
