"""Trials whose training has phases, in a sweep's folder, and what they leave.

Run as a program, one trains until it kills itself.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from search_spaces.identity import spec_from_dict, spec_to_dict
from search_spaces.spec import TrialSpec
from tests.tiny import tiny_pairs
from tests.unit.trainers.interrupted import EVERY_STEP, after, kill
from trainers.progress import EpochReport, ShouldStop, never
from trainers.select import train
from trainers.tuned import TunedModel

ROOT = Path(__file__).parents[3]
PAIRS = tiny_pairs()


@dataclass
class Trial:
    """A trial in a sweep's folder, as often as it is called."""

    sweep: Path
    name: str
    spec: TrialSpec
    source: Path
    told: list[EpochReport] = field(default_factory=list)

    @property
    def workdir(self) -> Path:
        return self.sweep / "trials" / self.name

    def __call__(self, should_stop: ShouldStop = never) -> TunedModel:
        self.workdir.mkdir(parents=True, exist_ok=True)
        return train(
            self.spec,
            self.source,
            PAIRS,
            self.workdir,
            self.told.append,
            checkpoints=EVERY_STEP,
            should_stop=should_stop,
            phases=self.sweep / "phases",
        )

    def phases(self) -> list[str]:
        return sorted(folder.name.partition("-")[0] for folder in (self.sweep / "phases").iterdir())


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def left(trial: Trial) -> dict[str, Any]:
    """Everything that a trial leaves, but for times."""
    rows = {
        name: [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in table(trial.workdir / name)
        ]
        for name in ("train.csv", "rl.csv")
    }
    model = {file.name: file.read_bytes() for file in (trial.workdir / "model").iterdir()}
    names = sorted(entry.name for entry in trial.workdir.iterdir())
    return {"rows": rows, "model": model, "names": names, "phases": trial.phases()}


def run_until_killed(trial: Trial, asked: int) -> None:
    """Run the trial in a process of its own, which kills itself when it is asked to stop so often."""
    file = trial.sweep / "spec.json"
    file.write_text(json.dumps(spec_to_dict(trial.spec)))
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.trainers.phased"]
    told = [str(file), str(trial.source), str(trial.sweep), str(asked)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [*command, *told], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def main() -> None:
    spec_file, source, sweep, asked = sys.argv[1:]
    spec = spec_from_dict(json.loads(Path(spec_file).read_text()))
    Trial(Path(sweep), "a", spec, Path(source))(after(int(asked), kill))


if __name__ == "__main__":
    main()
