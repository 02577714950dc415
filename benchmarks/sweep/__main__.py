"""One grid, run by a plain script on Ray Tune, TRL and PEFT and by our own sweep: time, memory, efficiency.

    python -m benchmarks.sweep --grid delta --width small

- `plain`: `plain_ray.py`, replies by `generate` in batches sorted by length;
- `one-by-one`: the same, one `generate` call a prompt and beam width, as the published ChatMGL code does;
- `unfused`: `python -m orchestrator sweep --no-fuse`, each trial trained alone;
- `ours`: `python -m orchestrator sweep`.

Each runs in a fresh process that starts its own Ray, and everything that the process begins is counted.
They have to come to the same: losses, replies and scores within `outcome.Tolerance`, or nothing is
written. Ours writes MLflow and a report besides, which the plain script does not.

Sweep efficiency is what `operations.py` counts as useful, divided by what the cores could have done in
the wall time, by a matrix multiplication measured before each variant (the best counts).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.results import describe_machine, write_results
from benchmarks.sweep.data import Lengths, write_data
from benchmarks.sweep.grids import (
    DEFAULT_AXES,
    Axes,
    Grid,
    Sizes,
    plain_settings,
    plain_trial,
    write_space,
)
from benchmarks.sweep.models import Width, make_model
from benchmarks.sweep.operations import Operations, measure_rate
from benchmarks.sweep.outcome import (
    Difference,
    Tolerance,
    TrialOutcome,
    compare,
    read_ours,
    read_plain,
)
from benchmarks.sweep.padding import PossibleScores
from benchmarks.sweep.processes import Usage, run_measured
from benchmarks.sweep.work import count_sweep, read_encoder, read_gpt2
from corpora.loaders import build_pairs
from corpora.read import read_corpus
from evaluators.encoders import Encoder, resolve_encoder
from evaluators.wordnet import require_wordnet
from orchestrator.plan import Planner, sweep_folder
from orchestrator.scale import ChosenScale
from search_spaces.space import read_space
from search_spaces.spec import DeltaSettings, TrialSpec

_ROOT = Path(__file__).parents[2]
_VARIANTS = ("plain", "one-by-one", "unfused", "ours")
_NO_FUSE = "--no-fuse"
_LEARNED_EMBEDDINGS = ("prompt", "p-tuning")
_STEPS_LOGGED_ONE_BY_ONE = 400
"""Longer trainings log means of several steps, the last of which may be left out."""


@dataclass(frozen=True)
class Job:
    """A grid, ready to be run by anyone."""

    name: str
    """Of the search space."""
    folder: Path
    """Where each variant has a folder."""
    space: Path
    model: Path
    encoder: Encoder
    specs: Mapping[str, TrialSpec]
    data: Mapping[str, Path]
    """Folder of each trial's data."""
    lengths: Mapping[str, Lengths]
    cpus: int
    fuses: bool
    """Whether this version can train trials together."""


@dataclass(frozen=True)
class Run:
    """A variant that was run."""

    usage: Usage
    outcomes: Mapping[str, TrialOutcome]


def main() -> None:
    """Run the variants one after the other and write what they took."""
    parser = _parser()
    given = parser.parse_args()
    usual = DEFAULT_AXES[given.grid]
    axes = Axes(
        tuple(given.learning_rates or usual.learning_rates),
        tuple(given.ranks or usual.ranks),
        tuple(given.batch_sizes or usual.batch_sizes),
    )
    sizes = Sizes(
        given.train_pairs,
        given.valid_pairs,
        given.test_pairs,
        given.epochs,
        given.new_tokens,
        given.max_length,
    )
    steps = sizes.train_pairs * sizes.epochs / min(axes.batch_sizes)
    if steps >= _STEPS_LOGGED_ONE_BY_ONE:
        parser.error(
            f"a training must have fewer than {_STEPS_LOGGED_ONE_BY_ONE} steps, but has {steps:g}"
        )
    fuses = _can_fuse()
    variants = [name for name in _VARIANTS if name in given.variants and (fuses or name != "ours")]
    if not fuses and "ours" in given.variants:
        print(f"ours: left out, as the sweep has no {_NO_FUSE}: `unfused` is all there is")
    with tempfile.TemporaryDirectory(prefix="sweep-benchmark-") as scratch:
        folder = given.work or Path(scratch)
        model = make_model(given.width, given.layers, folder / "model").resolve()
        job = prepare(given.grid, axes, sizes, model, given.cpus, fuses, folder)
        print(f"{len(job.specs)} trials, {job.cpus} at a time, in {folder}")
        runs: dict[str, Run] = {}
        rate = 0.0
        for variant in variants:
            rate = max(rate, measure_rate())
            runs[variant] = run_variant(variant, job)
            print(_told(variant, runs[variant]), flush=True)
        useful = count_job(job, runs[variants[0]].outcomes)
    apart = compare_runs(job, runs)
    rows = table(runs, apart, useful, rate)
    for row in rows:
        print(row)
    tolerance = Tolerance()
    broken = [f"{name}: {what}" for name, one in apart.items() for what in one.broken(tolerance)]
    if broken:
        sys.exit("the variants did not come to the same:\n" + "\n".join(broken))
    facts = {
        "command": f"python -m benchmarks.sweep {' '.join(sys.argv[1:])}".strip(),
        "trials": len(job.specs),
        "trials at a time": job.cpus,
        "useful operations": f"{useful.training + useful.decoding:.3g} training and decoding, "
        f"{useful.scoring:.3g} BERTScore's encoder",
        "fp32 matrix multiplication, operations a second": f"{rate:.3g}",
        "CPU seconds of a trial of the plain script": _cpu_by_part(runs),
        "machine": describe_machine(),
    }
    file = write_results(f"sweep_{given.grid}_{given.width}", rows, facts, given.results)
    print(file.with_suffix(".md").read_text(encoding="utf-8"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", choices=get_args(Grid), default="delta")
    parser.add_argument("--width", choices=get_args(Width), default="small")
    parser.add_argument("--layers", type=int, help="of the small model; default 2")
    parser.add_argument("--learning-rates", type=float, nargs="+")
    parser.add_argument("--ranks", type=int, nargs="+")
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--train-pairs", type=int, default=320)
    parser.add_argument("--valid-pairs", type=int, default=40)
    parser.add_argument("--test-pairs", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--max-length", type=int, default=144, help="tokens of prompt and reply")
    parser.add_argument("--cpus", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--variants", nargs="+", choices=_VARIANTS, default=list(_VARIANTS))
    parser.add_argument("--work", type=Path, help="folder to keep what the variants wrote")
    parser.add_argument(
        "--results", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the table"
    )
    return parser


def _can_fuse() -> bool:
    """Whether the sweep's help names the option that turns fusing off."""
    told = subprocess.run(
        [sys.executable, "-m", "orchestrator", "sweep", "--help"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return _NO_FUSE in told.stdout


def prepare(
    grid: Grid, axes: Axes, sizes: Sizes, model: Path, cpus: int, fuses: bool, folder: Path
) -> Job:
    """Everything that the variants read, in a folder.

    Args:
        grid: which trials.
        axes: what is varied.
        sizes: of each trial.
        model: folder of the model.
        cpus: trials at a time.
        fuses: whether this version can train trials together.
        folder: where files are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "space.yaml"
    write_space(grid, axes, sizes, model, space)
    loaded = read_space(str(space), ())
    planner = Planner(loaded, ChosenScale("laptop", "of the benchmark"), None, "")
    planned = planner.plan(sweep_folder(folder / "plan", loaded)).trials
    specs = {trial.id: trial.spec for trial in planned}
    reader = read_gpt2(model)
    data, lengths, known = {}, {}, {}
    for name, spec in specs.items():
        place = folder / "data" / spec.loader
        if spec.loader not in known:
            pairs = build_pairs(read_corpus(spec.corpus), spec.loader, spec.split)
            known[spec.loader] = write_data(pairs, reader.tokenizer, spec, place)
        data[name], lengths[name] = place, known[spec.loader]
    encoder = resolve_encoder(planned[0].spec.metrics)
    if encoder is None:
        raise ValueError("the grid must have an encoder for BERTScore")
    return Job(loaded.name, folder, space, model, encoder, specs, data, lengths, cpus, fuses)


def run_variant(variant: str, job: Job) -> Run:
    """Run a grid one way, in a process of its own.

    Args:
        variant: which way.
        job: the grid.

    Raises:
        RuntimeError: it failed; says where its log is.
    """
    folder = job.folder / variant
    folder.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")},
        "PYTHONPATH": str(_ROOT),
        "NLTK_DATA": str(require_wordnet().parents[1]),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    usage = run_measured(_command(variant, job, folder), environment, folder / "log.txt")
    if usage.exit_code != 0:
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{variant} ended with {usage.exit_code}:\n{log[-3000:]}")
    plain = variant in ("plain", "one-by-one")
    outcomes = read_plain(folder / "results.json") if plain else read_ours(folder / job.name)
    return Run(usage, outcomes)


def _command(variant: str, job: Job, folder: Path) -> list[str]:
    if variant in ("plain", "one-by-one"):
        spec = next(iter(job.specs.values()))
        settings = plain_settings(spec, job.model, job.encoder.folder, job.encoder.layer)
        if variant == "one-by-one":
            settings["eval_batch_size"] = 1
        trials = [plain_trial(name, spec, job.data[name]) for name, spec in job.specs.items()]
        content = {"cpus": job.cpus, "settings": settings, "trials": trials}
        file = folder / "job.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return [sys.executable, str(Path(__file__).with_name("plain_ray.py")), str(file)]
    command = [sys.executable, "-m", "orchestrator", "sweep", str(job.space), "--scale", "laptop"]
    command += ["--cpus", str(job.cpus), "--out", str(folder)]
    return [*command, _NO_FUSE] if variant == "unfused" and job.fuses else command


def count_job(job: Job, outcomes: Mapping[str, TrialOutcome]) -> Operations:
    """What the grid's trials cannot do without.

    Args:
        job: the grid.
        outcomes: of its trials.
    """
    model, encoder = read_gpt2(job.model), read_encoder(job.encoder.folder, job.encoder.layer)
    return count_sweep(job.specs, job.lengths, outcomes, model, encoder)


def compare_runs(job: Job, runs: Mapping[str, Run]) -> dict[str, Difference]:
    """How far each variant is from the first.

    PEFT drops the positions of padded prompts where it puts learned embeddings in front of them, so that
    such trials reply otherwise in batches: ours are compared with the replies to one prompt at a time.

    Args:
        job: the grid.
        runs: by variant.
    """
    first, *others = runs
    possible = PossibleScores(job.encoder, job.lengths)
    padded = {
        name
        for name, spec in job.specs.items()
        if first == "plain"
        and isinstance(spec.method, DeltaSettings)
        and spec.method.peft_type in _LEARNED_EMBEDDINGS
    }
    apart = {}
    for other in others:
        expected, left_out = dict(runs[first].outcomes), padded
        if "one-by-one" in runs and other != "one-by-one":
            expected |= {name: runs["one-by-one"].outcomes[name] for name in padded}
            left_out = set()
        apart[other] = compare(expected, runs[other].outcomes, left_out, possible)
    return apart


def table(
    runs: Mapping[str, Run], apart: Mapping[str, Difference], useful: Operations, rate: float
) -> list[dict[str, Any]]:
    """A row a variant; ratios say how many times this one's cost the first one's is.

    Args:
        runs: by variant; the first is what the others are measured against.
        apart: how far each variant's outcomes are from the first one's.
        useful: operations of the sweep.
        rate: operations a second that the machine can do.
    """
    first = next(iter(runs))
    against = runs[first].usage
    rows = []
    for variant, run in runs.items():
        usage, difference = run.usage, apart.get(variant)
        possible = usage.wall_s * rate
        rows.append(
            {
                "variant": variant,
                "wall s": round(usage.wall_s, 1),
                "CPU s": round(usage.cpu_s, 1),
                "peak GiB": round(usage.peak_gib, 3),
                f"wall, {first} / this": against.wall_s / usage.wall_s,
                f"CPU, {first} / this": against.cpu_s / usage.cpu_s,
                f"peak, {first} / this": against.peak_gib / usage.peak_gib,
                "sweep efficiency": (useful.training + useful.decoding) / possible,
                "with BERTScore": (useful.training + useful.decoding + useful.scoring) / possible,
                "loss apart": difference.loss if difference else None,
                "replies apart": f"{difference.flipped}/{difference.replies}" if difference else "",
            }
        )
    return rows


def _cpu_by_part(runs: Mapping[str, Run]) -> dict[str, dict[str, float]]:
    """Mean CPU seconds of the parts of a trial, by variant, where they were measured."""
    means = {}
    for variant, run in runs.items():
        laps = [outcome.cpu_s for outcome in run.outcomes.values()]
        if laps[0]:
            means[variant] = {
                part: round(sum(lap[part] for lap in laps) / len(laps), 2) for part in laps[0]
            }
    return means


def _told(variant: str, run: Run) -> str:
    usage = run.usage
    return (
        f"{variant}: {usage.wall_s:.1f} s, {usage.cpu_s:.1f} s of CPU, {usage.peak_gib:.2f} GiB "
        f"at its peak {_cpu_by_part({variant: run}).get(variant, '')}"
    )


if __name__ == "__main__":
    main()
