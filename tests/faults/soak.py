"""A sweep under fire: its processes are killed at random moments, and nothing may be lost or wrong.

`python -m tests.faults.soak --kills 30` runs a sweep of 15 small trials, undisturbed first; then again,
killing workers, the driver, the raylet and the MLflow server, each time giving the same command again
until it is done; and compares. Exit code 0 where nothing was lost, duplicated or wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient

from tests.faults.mlflow_server import Server, free_port
from tests.flow.sweeps import Grid, command, results, write_corpus, write_space
from tests.tiny import make_tiny_folder
from tests.unit.reports.tracked_runs import differences

METHODS = (
    {"kind": "base"},
    {"kind": "delta", "peft_type": "lora", "rank": 2, "dropout": 0.1},
    {"kind": "delta", "peft_type": "ia3"},
    {"kind": "delta", "peft_type": "bitfit"},
)
RL = {
    "rl_max_new_tokens": 8,
    "rl_learning_rate": 1e-3,
    "rl_batch_size": 8,
    "rl_mini_batch_size": 4,
    "rl_iterations": 1,
}
CHATMGL = {"kind": "chatmgl", "reward_model": None, "reward_epochs": 1, "epochs": 4, **RL}
PHASED = (CHATMGL, {**CHATMGL, "rl": "rloo"}, {"kind": "reader", "similarity_weight": 0, **RL})
"""Methods of several phases, two of which the first two share."""

KINDS = ("worker", "driver", "raylet", "mlflow")


@dataclass
class Tally:
    """What happened, and what should not have."""

    kills: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    rounds: int = 0
    trials: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)

    def text(self) -> str:
        kinds = ", ".join(f"{kind} {self.kills[kind]}" for kind in KINDS)
        lines = [
            f"kills: {self.kills.total()} ({kinds}); commands: {self.commands}; rounds: {self.rounds}",
            f"trials: {self.trials}; lost: {len(self.lost)}; duplicated: {len(self.duplicated)}; "
            f"wrong: {len(self.wrong)}",
            *(f"  {line}" for line in (*self.lost, *self.duplicated, *self.wrong)),
        ]
        return "\n".join(lines)


@dataclass
class Soak:
    """One experiment in one folder."""

    place: Path
    server: Server
    chance: random.Random
    pause_s: tuple[float, float] = (1.0, 9.0)
    weights: tuple[int, ...] = (5, 3, 2, 2)
    """How often each of `KINDS` is chosen."""
    fuse: bool = False
    """Whether trials train together; who does is not the same after a kill, so that they come to the
    same up to rounding only."""
    down_until: float = 0.0
    wanted: str = ""
    """What is to be killed next, once it is there."""
    tally: Tally = field(default_factory=Tally)

    def sweep(self, out: str) -> subprocess.Popen[str]:
        self.tally.commands += 1
        log = (self.place / f"{out}.log").open("a")
        with log:
            return subprocess.Popen(
                command(
                    *("sweep", "soak.yaml", "--corpus", "corpus.csv", "--scale", "laptop"),
                    *("--out", out, "--cpus", "2", "--checkpoint-every", "3 steps", "--json"),
                    "--fuse" if self.fuse else "--no-fuse",
                ),
                cwd=self.place,
                env={**os.environ, "MLFLOW_TRACKING_URI": self.server.uri},
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
            )

    def log(self, out: str) -> str:
        return (self.place / f"{out}.log").read_text()

    def undisturbed(self) -> dict[str, dict[str, Any]]:
        process = self.sweep("calm")
        if process.wait(timeout=900) != 0:
            raise RuntimeError(self.log("calm"))
        return results(self.place / "calm" / "soak")

    def round(self, out: str, kills: int, expected: dict[str, dict[str, Any]]) -> None:
        """Give the command again and again, killing something at random, until it ends by itself."""
        self.tally.rounds += 1
        first_seen: dict[Path, int] = {}
        left = kills
        process = self.sweep(out)
        failures = 0
        due = time.monotonic() + self.chance.uniform(*self.pause_s)
        while True:
            time.sleep(0.2)
            self.tend()
            self.note_results(out, first_seen)
            if process.poll() is not None:
                if process.returncode == 0:
                    break
                if process.returncode != -signal.SIGKILL:
                    # The command may end by itself with a word only where it was hit too often.
                    failures += 1
                    if failures > 3:
                        self.tally.wrong.append(
                            f"{out}: exit code {process.returncode}: {self.log(out)[-2000:]}"
                        )
                        return
                process = self.sweep(out)
                due = time.monotonic() + self.chance.uniform(*self.pause_s)
            elif left and time.monotonic() >= due:
                hit = self.kill_one(process)
                left -= hit
                if hit:
                    due = time.monotonic() + self.chance.uniform(*self.pause_s)
        self.note_results(out, first_seen)
        # The last word is the undisturbed command's: the server is there, and all is delivered.
        if self.server.process is None:
            self.server.start()
        self.server.wait()
        process = self.sweep(out)
        if process.wait(timeout=600) != 0:
            self.tally.wrong.append(f"{out}: the last run ended with {process.returncode}")
        self.note_results(out, first_seen)
        self.compare(out, expected)
        self.compare_tracking(out)

    def kill_one(self, driver: subprocess.Popen[str]) -> int:
        """Kill something; returns how many were hit (0 while there is none of the chosen kind)."""
        kind = self.wanted = self.wanted or self.chance.choices(KINDS, self.weights)[0]
        if kind == "mlflow":
            if self.server.process is None:
                return 0
            self.server.kill()
            self.down_until = time.monotonic() + self.chance.uniform(0, 15)
        elif kind == "driver":
            driver.kill()
        else:
            found = _children(driver.pid, kind)
            if not found:
                return 0
            try:
                self.chance.choice(found).kill()
            except psutil.NoSuchProcess:
                return 0
        self.tally.kills[kind] += 1
        self.wanted = ""
        return 1

    def note_results(self, out: str, first_seen: dict[Path, int]) -> None:
        """See that a result, once there, stays as it is."""
        for file in (self.place / out / "soak" / "trials").glob("*/result.json"):
            now = file.stat().st_mtime_ns
            if first_seen.setdefault(file, now) != now:
                self.tally.duplicated.append(f"{out}: {file.parent.name} was run again")
                first_seen[file] = now

    def compare(self, out: str, expected: dict[str, dict[str, Any]]) -> None:
        """Results, MLflow and status against the undisturbed sweep."""
        folder = self.place / out / "soak"
        found = results(folder)
        self.tally.trials += len(expected)
        self.tally.lost += [f"{out}: {trial}" for trial in expected if trial not in found]
        for trial in expected.keys() & found.keys():
            for part in ("scores", "data", "checks", "adjusted"):
                one, other = expected[trial][part], found[trial][part]
                if not (_close(one, other) if self.fuse else one == other):
                    self.tally.wrong.append(f"{out}: {trial}: {part} differ")
        status = json.loads((folder / "status.json").read_text())
        counts = {
            "total": len(expected),
            "done": len(expected),
            "failed": 0,
            "stopped_early": 0,
            "pending": 0,
        }
        if status["trials"] != counts:
            self.tally.wrong.append(f"{out}: status.json says {status['trials']}")
        leftovers = [
            str(file.relative_to(folder))
            for pattern in (
                "attempt.json",
                "phase.json",
                "checkpoint-*",
                "*.partial.jsonl",
                ".*tmp*",
                ".aside-*",
            )
            for place in ("trials", "phases")
            for file in folder.glob(f"{place}/*/{pattern}")
        ]
        phases, calm = (_weights(self.place / of / "soak" / "phases") for of in (out, "calm"))
        if phases != calm:
            names = sorted(name for name in {*phases, *calm} if phases.get(name) != calm.get(name))
            self.tally.wrong.append(f"{out}: phases differ: {names}")
        if leftovers:
            self.tally.wrong.append(f"{out}: left behind: {leftovers[:5]}")

    def tend(self) -> None:
        """Start the server again once it has been down for a while."""
        if self.server.process is None and time.monotonic() >= self.down_until:
            self.server.start()

    def compare_tracking(self, out: str) -> None:
        """Exactly one finished run a trial, with the result's metrics; none that still runs."""
        client = MlflowClient(self.server.uri)
        for line in differences(client, self.place / out / "soak"):
            kind = self.tally.duplicated if line.endswith(" runs") else self.tally.wrong
            kind.append(f"MLflow after {out}: {line}")


def _close(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether losses are equal up to rounding, and all else is there."""
    losses = [key for key in one if key.endswith("/loss")]
    return one.keys() == other.keys() and all(
        math.isclose(one[key], other[key], rel_tol=1e-3) for key in losses
    )


def _weights(phases: Path) -> dict[str, bytes]:
    """What each phase has come to, by its name."""
    return {
        file.parent.parent.name: file.read_bytes()
        for file in phases.glob("*/model/model.safetensors")
    }


def _children(pid: int, kind: str) -> list[psutil.Process]:
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in family:
        try:
            name = child.name()
        except psutil.NoSuchProcess:
            continue
        if name == "raylet" if kind == "raylet" else name.startswith("ray::Impl"):
            found.append(child)
    return found


def prepare(
    place: Path,
    seed: int,
    epochs: int,
    grid: Grid,
    model: Path | None = None,
    methods: Sequence[Mapping[str, object]] = METHODS + PHASED,
) -> Soak:
    """A folder with corpus, model and search space, and a server beside it."""
    place.mkdir(parents=True, exist_ok=True)
    write_corpus(place / "corpus.csv")
    model = model or make_tiny_folder("gpt2", place / "tiny-gpt2")
    (place / "server").mkdir()
    write_space(place / "soak.yaml", "soak", model, grid, methods, epochs=epochs)
    return Soak(place, Server(place / "server", free_port()), random.Random(seed))


def soak(one: Soak, kills: int) -> Tally:
    """Kill until there were enough kills, in as many rounds as that takes; then compare."""
    one.server.start()
    try:
        one.server.wait()
        expected = one.undisturbed()
        while one.tally.kills.total() < kills:
            before = one.tally.kills.total()
            one.round(f"round{one.tally.rounds + 1}", kills - before, expected)
            print(one.tally.text(), file=sys.stderr, flush=True)
    finally:
        one.server.kill()
    return one.tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    grid = {"batch_size": [2, 4], "loader": ["v1", "v2"], "learning_rate": [1e-3, 5e-4]}
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        one = prepare(Path(place), arguments.seed, arguments.epochs, grid)
        tally = soak(one, arguments.kills)
    print(tally.text())
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
