"""Ctrl-C once and twice, a second driver, a driver's sudden death: nothing lost, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from tests.flow.sweeps import command, results, run, write_corpus, write_space

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Path:
    folder = tmp_path_factory.mktemp("long")
    write_corpus(folder / "corpus.csv")
    for file, epochs in (("long.yaml", 2000), ("short.yaml", 30)):
        grid = {"batch_size": [2, 4]}
        write_space(folder / file, "long", tiny_gpt2, grid, loader="v1", epochs=epochs)
    return folder


def sweep(space: str, out: Path, every: int = 20) -> list[str]:
    """The command, its checkpoints so many steps apart."""
    return [
        *("sweep", space, "--corpus", "corpus.csv", "--scale", "laptop", "--out", str(out)),
        *("--checkpoint-every", f"{every} steps", "--json"),
    ]


def start(place: Path, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.1)


def steps(out: Path) -> dict[str, int]:
    """The newest checkpoint of each trial."""
    found: dict[str, int] = {}
    for folder in out.glob("long/trials/*/checkpoint-*"):
        trial = folder.parent.name
        found[trial] = max(found.get(trial, 0), int(folder.name.removeprefix("checkpoint-")))
    return found


def listening_elsewhere(family: list[psutil.Process]) -> list[str]:
    """Addresses beyond this machine's own at which a family of processes listens."""
    found = []
    for one in family:
        try:
            connections = one.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        for connection in connections:
            address = connection.laddr.ip.removeprefix("::ffff:") if connection.laddr else ""
            if connection.status == psutil.CONN_LISTEN and address not in ("127.0.0.1", "::1"):
                found.append(f"{one.name()} {connection.laddr}")
    return found


def runs_by_status(out: Path) -> dict[str, int]:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("long")
    assert experiment is not None
    counts: dict[str, int] = {}
    for one in client.search_runs([experiment.experiment_id]):
        counts[one.info.status] = counts.get(one.info.status, 0) + 1
    return counts


def test_asked_once_trials_save_and_a_second_driver_is_refused(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    # So far apart that the two trials are hardly ever both stopped just where one is due.
    every = 97
    long = sweep("long.yaml", out, every)
    process = start(place, long)
    wait_until(lambda: len(steps(out)) == 2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any(one.name() == "raylet" for one in family)
    assert not listening_elsewhere([psutil.Process(process.pid), *family])

    second = run(long, place)
    assert second.code == 2, second.err
    assert f"process {process.pid}" in second.err
    assert process.poll() is None

    before = steps(out)
    # To the whole group, as `timeout`, schedulers and closing terminals do it: not even then may
    # the trials lose what they could have saved.
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopping: running trials save where they are" in err
    assert "to continue: python -m orchestrator sweep" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    after = steps(out)
    assert all(after[trial] >= before[trial] for trial in before)
    # A checkpoint between two regular ones is the stop's own.
    assert not any(step % every for step in before.values())
    assert any(step % every for step in after.values())
    assert runs_by_status(out) == {"KILLED": 3}
    status = run(["status", str(out / "long"), "--json"], place)
    assert status.json["trials"]["pending"] == 2

    again = start(place, long)
    wait_until(lambda: any(steps(out).get(t, 0) > after[t] for t in after), again)
    family = psutil.Process(again.pid).children(recursive=True)
    again.send_signal(signal.SIGINT)
    time.sleep(0.05)
    again.send_signal(signal.SIGINT)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 130, err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    # Nothing began again from its beginning.
    assert all(step >= after[trial] for trial, step in steps(out).items())
    assert runs_by_status(out) == {"KILLED": 3}


def test_a_driver_that_is_killed_leaves_nothing_running_and_its_trials_go_on(
    place: Path, tmp_path: Path
) -> None:
    calm = tmp_path / "calm"
    done = run(sweep("short.yaml", calm), place)
    assert done.code == 0, done.err
    out = tmp_path / "runs"
    shared = set(os.listdir("/dev/shm"))
    process = start(place, sweep("short.yaml", out))
    wait_until(lambda: steps(out), process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, err = process.communicate()
    assert "the sweep ended without a word" in err
    assert "to continue: python -m orchestrator sweep" in err
    # At once, although most of Ray's processes may still be ending.
    done = run(sweep("short.yaml", out), place)
    assert done.code == 0, done.err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert set(os.listdir("/dev/shm")) <= shared
    found, expected = results(out / "long"), results(calm / "long")
    assert found.keys() == expected.keys()
    for trial, result in found.items():
        for part in ("scores", "checks", "data"):
            assert result[part] == expected[trial][part]
    assert any(result["provenance"]["resumed"] for result in found.values())
    assert runs_by_status(out) == {"FINISHED": 3}
    assert not steps(out)
