"""Tracking servers that are killed, silent, broken or full, and drivers killed while they write."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.storage import SweepFolder
from orchestrator.tracking_thread import TrackingThread
from reports.results import read_sweep
from reports.tracking import Tracker
from reports.tracking_store import tracking_store
from reports.write import ReportPaths, write_report
from tests.faults.mlflow_server import BlackHole, Broken, Server, free_port
from tests.tracked_sweep import Lines, events_of, plan_of
from tests.unit.reports.sweep_builder import trial_id, write_grid
from tests.unit.reports.tracked_runs import differences, keep_few, runs_of

ORDER = [trial_id(number) for number in (1, 4, 9, 16, 20)]
"""Done, failed, done, pending, done."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), free_port())
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportPaths]:
    """A sweep's folder and its report, which takes seconds to draw."""
    folder = keep_few(write_grid(tmp_path_factory.mktemp("prepared") / "paper_grid"))
    return folder, write_report(folder)


@pytest.fixture
def folder(prepared: tuple[Path, ReportPaths], tmp_path: Path) -> SweepFolder:
    return SweepFolder(shutil.copytree(prepared[0], tmp_path / "runs" / "paper_grid"))


@pytest.fixture
def report(prepared: tuple[Path, ReportPaths]) -> ReportPaths:
    return prepared[1]


def named(folder: SweepFolder, name: str) -> SweepFolder:
    """The sweep under a name of its own, because the server is shared."""
    plan = json.loads((folder.path / "plan.json").read_text())
    (folder.path / "plan.json").write_text(json.dumps({**plan, "name": name}))
    return folder


def hide_results(folder: SweepFolder) -> dict[str, tuple[Path, Path]]:
    """Put every trial's end aside; each is put in place when its trial ends."""
    hidden = {}
    for one in ORDER:
        for kind in ("result.json", "failure.json"):
            file = folder.trial(one) / kind
            if file.exists():
                hidden[one] = (file, file.rename(file.with_suffix(".aside")))
    return hidden


def play(thread: TrackingThread, folder: SweepFolder, events: dict[str, Any], one: str) -> None:
    """A trial runs, quickly: its events, its result before the last of them."""
    thread.take(events[one][0])
    for event in events[one][1:]:
        time.sleep(0.1)
        file, aside = events["hidden"].get(one, (None, None))
        if event is events[one][-1] and file is not None:
            aside.rename(file)
        thread.take(event)


def begin(folder: SweepFolder, display: Lines) -> TrackingThread:
    return TrackingThread(folder, plan_of(folder.path), display)  # type: ignore[arg-type]


def record(folder: SweepFolder) -> dict[str, Any]:
    return json.loads((folder.path / "tracking.json").read_text())


def wait_for(display: Lines, words: str, within_s: float) -> None:
    end = time.monotonic() + within_s
    while not display.count(words):
        assert time.monotonic() < end, f"{words!r} was not said; said was {display.said}"
        time.sleep(0.05)


def test_a_server_killed_and_started_again_in_mid_sweep_has_everything_at_the_end(
    server: Server, folder: SweepFolder, report: ReportPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    named(folder, "killed")
    display, events = Lines(), {one: events_of(folder.path, one) for one in ORDER}
    events["hidden"] = hide_results(folder)
    assert server.listening() == {"127.0.0.1"}
    thread = begin(folder, display)
    play(thread, folder, events, ORDER[0])
    wait_until_run(server, "killed")
    server.kill()
    began = time.monotonic()
    for one in ORDER[1:4]:
        play(thread, folder, events, one)
    # 1.3 s of it is the trials' own time.
    assert time.monotonic() - began < 5
    wait_for(display, "cannot be written", 20)
    assert record(folder)["delivered"] is False
    server.start()
    play(thread, folder, events, ORDER[4])
    server.wait()
    wait_for(display, "answers again", 60)
    thread.finish(report)
    client = MlflowClient(tracking_uri=server.uri)
    assert differences(client, folder.path) == []
    assert len(display.said) - display.count("waiting") == 2
    assert record(folder) == {"uri": server.uri, "delivered": True, "reason": None}


def wait_until_run(server: Server, sweep: str) -> None:
    client = MlflowClient(tracking_uri=server.uri)
    end = time.monotonic() + 30
    while client.get_experiment_by_name(sweep) is None or not runs_of(client, "trial", sweep):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_a_dead_server_missed_the_next_run_of_the_sweep_delivers(
    server: Server, folder: SweepFolder, report: ReportPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(folder, "missed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{free_port()}")
    display = Lines()
    began = time.monotonic()
    thread = begin(folder, display)
    for one in ORDER:
        for event in events_of(folder.path, one):
            thread.take(event)
    assert time.monotonic() - began < 2
    thread.finish(report)
    assert time.monotonic() - began < 30
    assert display.count("may lack 3 of 3 results") == 1
    assert "hunter2" not in "".join(display.said) + (folder.path / "tracking.json").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    thread = begin(folder, Lines())
    thread.finish(report)
    assert differences(MlflowClient(tracking_uri=server.uri), folder.path) == []


@pytest.mark.parametrize("end", ["finish", "interrupt"])
def test_a_server_that_never_answers_is_given_up(
    folder: SweepFolder, report: ReportPaths, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    hole = BlackHole()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", hole.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # what the user has set holds
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    display = Lines()
    thread = begin(folder, display)
    began = time.monotonic()
    for one in ORDER:
        for event in events_of(folder.path, one):
            thread.take(event)
    assert time.monotonic() - began < 1
    time.sleep(0.5)
    began = time.monotonic()
    thread.finish(report) if end == "finish" else thread.interrupt()
    thread.close()
    waited = time.monotonic() - began
    assert waited < (30 if end == "finish" else 8), waited
    assert display.count("may lack") == 1
    assert record(folder)["delivered"] is False
    hole.close()


@pytest.mark.parametrize("status", [500, 503, 200, 403])
def test_a_server_that_answers_nonsense_is_said_once(
    folder: SweepFolder, report: ReportPaths, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    broken = Broken(status)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", broken.uri)
    monkeypatch.setattr("orchestrator.tracking_thread._LAST_PAUSES_S", (0.0, 0.2))
    display = Lines()
    thread = begin(folder, display)
    for event in events_of(folder.path, ORDER[0]):
        thread.take(event)
    wait_for(display, "cannot be written", 20)
    began = time.monotonic()
    thread.finish(report)
    assert time.monotonic() - began < 25
    assert [display.count("cannot be written"), display.count("may lack")] == [1, 1]
    broken.close()


def test_a_locked_database_delays_nothing_and_is_written_when_it_is_free(
    folder: SweepFolder, report: ReportPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tracking_store(folder.path.parent, {})
    Tracker(store, "paper_grid").ensure_store()
    lock = sqlite3.connect(folder.path.parent / "mlflow.db")
    lock.execute("BEGIN EXCLUSIVE")
    display = Lines()
    thread = begin(folder, display)
    began = time.monotonic()
    for one in ORDER:
        for event in events_of(folder.path, one):
            thread.take(event)
    assert time.monotonic() - began < 1
    time.sleep(1)
    lock.rollback()
    lock.close()
    thread.finish(report)
    assert differences(MlflowClient(tracking_uri=store.uri), folder.path) == []
    assert record(folder)["delivered"] is True


def drive(runs: Path) -> None:
    """A driver that writes a prepared sweep's runs; to be killed."""
    folder = SweepFolder(runs / "paper_grid")
    thread = begin(folder, Lines())
    print("begun", flush=True)
    for one in ORDER:
        for event in events_of(folder.path, one):
            thread.take(event)
    thread.interrupt()


def kill_drivers(folder: SweepFolder, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    environment.pop("MLFLOW_TRACKING_URI", None)
    code = "import sys; from pathlib import Path; from tests.faults import test_tracking_outages"
    code += " as t; t.drive(Path(sys.argv[1]))"
    for _ in range(kills):
        driver = subprocess.Popen(
            [sys.executable, "-c", code, str(folder.path.parent)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert driver.stdout is not None
        with driver.stdout:
            assert driver.stdout.readline() == b"begun\n"
            time.sleep(chance.uniform(0, 1.2))
            driver.send_signal(signal.SIGKILL)
            driver.wait()


def check_after_kills(folder: SweepFolder) -> None:
    store = tracking_store(folder.path.parent, {})
    tracker = Tracker(store, "paper_grid")
    tracker.reconcile(folder.path)
    tracker.finish_sweep(read_sweep(folder.path))
    client = MlflowClient(tracking_uri=store.uri)
    assert differences(client, folder.path) == []
    assert len(runs_of(client)) >= 4
    again = Tracker(store, "paper_grid").reconcile(folder.path)
    assert (again.logged, again.unchanged, again.deleted) == (0, 3, 0)


def test_drivers_killed_while_they_write_leave_what_the_next_one_mends(
    folder: SweepFolder,
) -> None:
    Tracker(tracking_store(folder.path.parent, {}), "paper_grid").ensure_store()
    kill_drivers(folder, kills=2, seed=1)
    check_after_kills(folder)


@pytest.mark.slow
def test_many_drivers_killed_while_they_write(folder: SweepFolder) -> None:
    kill_drivers(folder, kills=15, seed=2)  # the first may even be killed as it makes the database
    check_after_kills(folder)
