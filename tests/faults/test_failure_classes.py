"""Faults in real sweeps: each ends as its class says, and its siblings as if nothing had been."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from tests.flow.sweeps import Finished, results, run, write_corpus, write_space

pytestmark = pytest.mark.timeout(280)

SWEEP = ("sweep", "faulty.yaml", "--corpus", "corpus.csv", "--scale", "laptop", "--json")

FAULTS = {
    2e-3: "oom",
    3e-3: "oom_always",
    4e-3: "nan",
    5e-3: "error",
    6e-3: "die_once",
    8e-3: "clock",
}
"""What happens to the trial of each learning rate; the trial of 1e-3 is left in peace."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    write_corpus(folder / "corpus.csv")
    grid = {"learning_rate": [1e-3, *FAULTS]}
    file = folder / "faulty.yaml"
    write_space(file, "faulty", tiny_gpt2, grid, loader="v1", batch_size=4, epochs=2)
    return folder


@pytest.fixture(scope="module")
def calm(place: Path) -> dict[float, dict[str, Any]]:
    """Results without any fault, by learning rate."""
    done = run([*SWEEP, "--out", "calm"], place)
    assert done.code == 0, done.err
    return by_rate(results(place / "calm/faulty"))


@pytest.fixture(scope="module")
def faulty(place: Path) -> Finished:
    """The sweep with every fault at once, in which siblings must not hear of each other."""
    return run_faulty(place, FAULTS, "--checkpoint-every", "3 steps", out="faulty")


def run_faulty(
    place: Path, faults: dict[float, str], *arguments: str, out: str, **environ: str
) -> Finished:
    return run(
        [*SWEEP, "--out", out, *arguments],
        place,
        timeout_s=250,
        FAULTS=json.dumps(faults),
        FAULT_MARK=str(place / f"{out}.mark"),
        PYTHONPATH=str(Path(__file__).parent / "inject"),
        **environ,
    )


def by_rate(found: dict[str, dict[str, Any]]) -> dict[float, dict[str, Any]]:
    return {result["spec"]["training"]["learning_rate"]: result for result in found.values()}


def failures(place: Path, out: str) -> dict[float, dict[str, Any]]:
    """Records of failed trials, by learning rate."""
    files = (place / out / "faulty").glob("trials/*/failure.json")
    return by_rate({file.parent.name: json.loads(file.read_text()) for file in files})


def run_status(place: Path, out: str) -> dict[str, str]:
    client = MlflowClient(f"sqlite:///{place / out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("faulty")
    assert experiment is not None
    return {
        run.data.tags.get("trial_id", "parent"): run.info.status
        for run in client.search_runs([experiment.experiment_id])
    }


def test_every_fault_has_its_class_and_the_words_agree(place: Path, faulty: Finished) -> None:
    assert faulty.code == 1, faulty.err
    assert "Traceback" not in faulty.err
    failed, done = failures(place, "faulty"), by_rate(results(place / "faulty/faulty"))
    assert {rate: record["reason"] for rate, record in failed.items()} == {
        3e-3: "out_of_memory",
        4e-3: "diverged",
        5e-3: "error",
    }
    assert set(done) == {1e-3, 2e-3, 6e-3, 8e-3}
    told = {failure["id"]: failure for failure in faulty.json["failures"]}
    for record in failed.values():
        assert told[record["id"]]["reason"] == record["reason"]
        assert told[record["id"]]["message"] == record["message"]
        assert "\n" not in record["message"]
    statuses = {record["id"]: "FAILED" for record in failed.values()}
    statuses |= {result["id"]: "FINISHED" for result in done.values()}
    assert run_status(place, "faulty") == {"parent": "FAILED", **statuses}
    shown = run(["status", "faulty/faulty"], place).out
    for reason in ("out_of_memory", "diverged", "error"):
        assert f"failed, {reason}:" in shown
    assert "injected: the first line" in shown


def test_siblings_of_failing_trials_are_untouched(
    place: Path, faulty: Finished, calm: dict[float, dict[str, Any]]
) -> None:
    found = by_rate(results(place / "faulty/faulty"))[1e-3]
    assert found["scores"] == calm[1e-3]["scores"]
    assert found["adjusted"] == {}


def test_out_of_memory_in_training_makes_smaller_pieces(
    place: Path, faulty: Finished, calm: dict[float, dict[str, Any]]
) -> None:
    found = by_rate(results(place / "faulty/faulty"))[2e-3]
    assert found["adjusted"] == {"batch_size": 1, "gradient_accumulation_steps": 4}
    loss = calm[2e-3]["scores"]["valid/loss"]
    assert found["scores"]["valid/loss"] == pytest.approx(loss, rel=0.05)
    table = (place / "faulty/faulty/report/table1.md").read_text()
    assert "1 pairs x 4 passes a step instead of 4 x 1" in table


def test_out_of_memory_with_one_pair_at_a_time_is_a_failure(place: Path, faulty: Finished) -> None:
    assert "9.00 GiB" in failures(place, "faulty")[3e-3]["message"]


def test_a_loss_that_is_not_finite_ends_the_trial_at_its_step(
    place: Path, faulty: Finished
) -> None:
    assert "at step 6" in failures(place, "faulty")[4e-3]["message"]


def test_a_worker_that_dies_once_costs_nothing_but_time(
    place: Path, faulty: Finished, calm: dict[float, dict[str, Any]]
) -> None:
    assert (place / "faulty.mark").exists()
    found = by_rate(results(place / "faulty/faulty"))[6e-3]
    assert found["provenance"]["resumed"] == 1
    assert found["scores"] == calm[6e-3]["scores"]


def test_a_clock_that_is_set_back_changes_nothing(
    place: Path, faulty: Finished, calm: dict[float, dict[str, Any]]
) -> None:
    found = by_rate(results(place / "faulty/faulty"))[8e-3]
    assert found["scores"] == calm[8e-3]["scores"]
    assert found["provenance"]["started_at"] <= found["provenance"]["finished_at"]
    assert 0 < found["cost"]["train_seconds"] < 600
    lines = (place / "faulty/faulty/trials" / found["id"] / "train.csv").read_text().splitlines()
    seconds = [float(line.rsplit(",", 1)[1]) for line in lines[1:]]
    assert seconds == sorted(seconds)


def test_only_the_failed_are_run_again_when_asked(
    place: Path, faulty: Finished, calm: dict[float, dict[str, Any]]
) -> None:
    record = failures(place, "faulty")[5e-3]
    assert record["message"] == "RuntimeError: injected: the first line"
    assert "and a second" in record["traceback"]
    again = run([*SWEEP, "--out", "faulty", "--retry-failed"], place)
    assert again.code == 0, again.err
    assert " 3 to run" in again.err
    found = by_rate(results(place / "faulty/faulty"))
    for rate in (4e-3, 5e-3):
        assert found[rate]["scores"] == calm[rate]["scores"]
    assert set(run_status(place, "faulty").values()) == {"FINISHED"}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"id": "',
        b"\x00" * 100,
        b"[]",
        b'{"id": "ID", "scores": {}}',
        b'{"id": "ID", "spec": {}, "scores": {"test/rouge1": "high"}}',
    ],
)
def test_a_result_that_is_not_whole_is_to_be_made_again(
    place: Path, tmp_path: Path, calm: dict[float, dict[str, Any]], damage: bytes
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(place / "calm", out)
    victim = calm[1e-3]["id"]
    file = out / "faulty/trials" / victim / "result.json"
    file.write_bytes(damage.replace(b"ID", victim.encode()))
    plan = run(["plan", *SWEEP[1:], "--out", str(out)], place)
    status = run(["status", str(out / "faulty"), "--json"], place)
    pending = [trial["id"] for trial in plan.json["trials"] if trial["status"] == "pending"]
    assert pending == [victim]
    assert status.json["trials"] == {
        "total": 7,
        "done": 6,
        "failed": 0,
        "stopped_early": 0,
        "pending": 1,
    }


@pytest.mark.slow
def test_a_trial_that_kills_its_workers_is_given_up(
    place: Path, calm: dict[float, dict[str, Any]]
) -> None:
    rates = ("--set", "learning_rate=[1.0e-3, 7.0e-3]")
    done = run_faulty(place, {7e-3: "die"}, *rates, out="die")
    assert done.code == 1, done.err
    record = failures(place, "die")[7e-3]
    assert record["reason"] == "worker_lost"
    assert "6 times in a row" in record["message"]
    assert by_rate(results(place / "die/faulty"))[1e-3]["scores"] == calm[1e-3]["scores"]


@pytest.mark.slow
def test_a_worker_that_ray_kills_for_memory_goes_on_with_less(
    place: Path, calm: dict[float, dict[str, Any]]
) -> None:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 4 * 2**30) / memory.total
    if threshold > 0.9:
        pytest.skip("too little memory is free to run out of it in a controlled way")
    rates = ("--set", "learning_rate=[1.0e-3, 7.0e-3]")
    done = run_faulty(
        place,
        {7e-3: "eat"},
        *rates,
        out="eat",
        RAY_memory_usage_threshold=f"{threshold:.3f}",
        RAY_memory_monitor_refresh_ms="250",
    )
    assert done.code == 0, done.err
    found = by_rate(results(place / "eat/faulty"))
    assert found[7e-3]["adjusted"]["batch_size"] < 4
    assert found[1e-3]["scores"] == calm[1e-3]["scores"]


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep_and_room_lets_it_go_on(
    place: Path, tmp_path: Path, calm: dict[float, dict[str, Any]]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        stopped = run([*SWEEP, "--out", str(small)], place)
        assert stopped.code == 1, stopped.err
        assert "Traceback" not in stopped.err
        assert re.search(r"stopped: the disk of .* is full: .* is free", stopped.err)
        assert "to continue: python -m orchestrator sweep" in stopped.err
        assert not list(small.glob("faulty/trials/*/failure.json"))
        for file in small.glob("faulty/trials/*/result.json"):
            json.loads(file.read_text())
        more = ["mount", "-o", "remount,size=200m", str(small)]
        subprocess.run(more, check=True, capture_output=True)
        done = run([*SWEEP, "--out", str(small)], place)
        assert done.code == 0, done.err
        found = by_rate(results(small / "faulty"))
        assert {k: v["scores"] for k, v in found.items()} == {
            k: v["scores"] for k, v in calm.items()
        }
        assert set(run_status(small, ".").values()) == {"FINISHED"}
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
