"""What the orchestrator itself costs: planning, and sweeps whose trials do nothing.

    python -m benchmarks.overhead [--plans 1000 10000 100000] [--trials 100 1000] [--cpus 2]

A plan is timed as the command `plan --json`, in CPU seconds of its process, with its peak memory. A
sweep is the real command with real Ray, result files, MLflow and report, in which training and
evaluation alone are replaced (`benchmarks/noop`, by PYTHONPATH); it is timed by the clock on the
wall, from start to end. It is then run again, when there is nothing to do.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import describe_machine, write_results

_NOOP = Path(__file__).parent / "noop"
_START = """
import json, os, subprocess, sys
file, *command = sys.argv[1:]
process = subprocess.Popen([sys.executable, "-m", *command])
_, status, used = os.wait4(process.pid, 0)
with open(file, "w") as out:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss], out)
sys.exit(bool(status))
"""
_GRID = {
    "learning_rate": [step * 1e-5 for step in range(1, 11)],
    "batch_size": list(range(1, 11)),
}


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Of its own process; what Ray's processes took is not in it."""
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="Keep the results of record.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write_corpus(place / "corpus.csv")
        model = make_model(place / "model")
        rows = [_plan(place, count) for count in given.plans]
        for count in given.trials:
            rows += _sweep(place, model, count, given.cpus)
    for row in rows:
        print(row)
    if given.write:
        facts = {
            "what": "plan --json; sweeps whose trials train and evaluate nothing",
            "workers": given.cpus,
            **describe_machine(),
        }
        print(write_results("overhead", rows, facts))


def _plan(place: Path, count: int) -> dict[str, Any]:
    space = write_space(place / "plan.yaml", "plan", "laptop-medium", count)
    cost = run(["plan", str(space), "--json", "--corpus", "corpus.csv"], place)
    return {
        "what": "plan",
        "trials": count,
        "wall_s": round(cost.wall_s, 2),
        "cpu_s": round(cost.cpu_s, 2),
        "peak_mib": round(cost.peak_mib),
        "wall_s_per_trial": round(cost.wall_s / count, 5),
    }


def _sweep(place: Path, model: Path, count: int, cpus: int) -> list[dict[str, Any]]:
    """The sweep from nothing, and again with all of it done."""
    space = write_space(place / "sweep.yaml", f"sweep{count}", str(model), count)
    command = ["sweep", str(space), "--corpus", "corpus.csv", "--cpus", str(cpus)]
    rows = []
    for what in ("sweep", "sweep again"):
        cost = run(command, place, PYTHONPATH=os.pathsep.join([str(_NOOP), os.getcwd()]))
        status = json.loads((place / "runs" / f"sweep{count}" / "status.json").read_bytes())
        if status["trials"]["done"] != count:
            raise SystemExit(f"only {status['trials']} of {count} trials are done")
        rows.append(
            {
                "what": what,
                "trials": count,
                "wall_s": round(cost.wall_s, 2),
                "cpu_s": round(cost.cpu_s, 2),
                "peak_mib": round(cost.peak_mib),
                "wall_s_per_trial": round(cost.wall_s / count, 5),
            }
        )
    return rows


def run(arguments: Sequence[str], place: Path, **environ: str) -> Cost:
    """Run a command of the orchestrator to its end.

    Args:
        arguments: its own.
        place: where.
        environ: further variables.
    """
    paths = {"PYTHONPATH": os.getcwd(), **environ}
    began = time.monotonic()
    with (place / "out").open("w") as out, (place / "err").open("w") as err:
        # A small process starts it: the peak of a large one would count as its child's.
        done = subprocess.run(
            [sys.executable, "-S", "-c", _START, str(place / "used"), "orchestrator", *arguments],
            cwd=place,
            env={**os.environ, **paths},
            stdout=out,
            stderr=err,
            check=False,
        )
    wall = time.monotonic() - began
    if done.returncode != 0:
        raise SystemExit((place / "err").read_text()[-2000:])
    cpu_s, peak = json.loads((place / "used").read_bytes())
    # Kilobytes on Linux, bytes on macOS.
    return Cost(wall, cpu_s, peak / (2**20 if sys.platform == "darwin" else 2**10))


def write_space(file: Path, name: str, model: str, count: int) -> Path:
    """A grid of learning rates, batch sizes, ranks and seeds with this many trials.

    Args:
        file: where.
        name: the sweep's.
        model: name or folder.
        count: a multiple of 100.
    """
    ranks = min(count // 100, 10)
    grid = {**_GRID, "rank": list(range(1, ranks + 1))}
    stage: Mapping[str, Any] = {
        "name": "grid",
        "grid": grid,
        "methods": [{"kind": "delta"}],
        "seeds": list(range(count // (100 * ranks))),
    }
    defaults = {"model": model, "bertscore_model": None, "max_length": 96, "max_new_tokens": 8}
    space = {"name": name, "defaults": defaults, "stages": [stage]}
    file.write_text(yaml.safe_dump(space, sort_keys=False))
    return file


def write_corpus(file: Path) -> None:
    """Ten short sessions in HOPE's format.

    Args:
        file: where.
    """
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ID", "Type", "Utterance", "Dialog_Act"])
        for session in range(10):
            for turn in range(8):
                text = f"This is what was said in turn {turn} of session {session}"
                writer.writerow(
                    [f"{session}_{turn}", "PT"[turn % 2], text, ["id", "irq"][turn % 2]]
                )


def make_model(folder: Path) -> Path:
    """A model of a few thousand parameters, which nothing here runs.

    Args:
        folder: where.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    from trainers.laptop_models import LaptopModel, train_tokenizer

    shape = LaptopModel(n_layer=1, n_embd=8, n_head=1, epochs=1, vocab_size=300, n_positions=128)
    tokenizer = train_tokenizer(["This is what was said in a turn of a session."], shape)
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, n_positions=128, vocab_size=len(tokenizer))
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
