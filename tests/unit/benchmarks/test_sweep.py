from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import write_results
from benchmarks.sweep.__main__ import Run, prepare, table
from benchmarks.sweep.grids import Axes, Grid, Sizes, plain_trial
from benchmarks.sweep.operations import Operations
from benchmarks.sweep.outcome import Difference
from benchmarks.sweep.processes import Usage
from search_spaces.spec import DeltaSettings
from tests.tiny import tiny_spec

SIZES = Sizes(train_pairs=3, valid_pairs=2, test_pairs=2, epochs=1, new_tokens=8, max_length=64)


@pytest.mark.parametrize(
    ("grid", "methods"),
    [
        ("delta", {"lora": 8}),
        (
            "mixed",
            {"base": 2, "sft": 4, "lora": 4, "prefix": 4, "prompt": 4, "p-tuning": 4, "ia3": 4}
            | {"ln-tuning": 4},
        ),
    ],
)
def test_a_grid_has_the_same_trials_for_everyone(
    grid: Grid, methods: dict[str, int], tiny_gpt2: Path, tmp_path: Path
) -> None:
    axes = Axes((1e-3, 1e-4), (2, 4), (1, 2) if grid == "delta" else (1,))
    job = prepare(grid, axes, SIZES, tiny_gpt2, cpus=1, fuses=False, folder=tmp_path)
    told = [plain_trial(name, spec, job.data[name]) for name, spec in job.specs.items()]
    counts: dict[str, int] = {}
    for trial in told:
        counts[trial["method"]] = counts.get(trial["method"], 0) + 1
    assert counts == methods
    different = {tuple((k, v) for k, v in trial.items() if k != "id") for trial in told}
    assert len(different) == len(told)
    assert {len(lengths.train) for lengths in job.lengths.values()} == {3}


def test_a_method_that_the_plain_script_lacks_is_refused(tmp_path: Path) -> None:
    spec = tiny_spec(method=DeltaSettings(peft_type="houlsby"))
    with pytest.raises(ValueError, match="plain script has no"):
        plain_trial("a", spec, tmp_path)


def test_the_table_sets_each_variant_against_the_first(tmp_path: Path) -> None:
    runs = {
        "plain": Run(Usage(wall_s=10.0, cpu_s=16.0, peak_gib=2.0, exit_code=0), {}),
        "ours": Run(Usage(wall_s=2.0, cpu_s=4.0, peak_gib=1.0, exit_code=0), {}),
    }
    apart = {"ours": Difference(1e-7, 0.0, 0.0, padded=0, flipped=1, replies=8)}
    useful = Operations(training=3e9, decoding=1e9, scoring=4e9)
    rows: list[dict[str, Any]] = table(runs, apart, useful, rate=1e10)
    plain, ours = rows
    assert plain["wall, plain / this"] == 1.0
    assert ours["wall, plain / this"] == 5.0
    assert ours["CPU, plain / this"] == 4.0
    assert ours["peak, plain / this"] == 2.0
    assert ours["sweep efficiency"] == pytest.approx(4e9 / 2e10)
    assert ours["with BERTScore"] == pytest.approx(8e9 / 2e10)
    file = write_results("sweep", rows, {"trials": 2}, tmp_path)
    written = file.with_suffix(".md").read_text()
    assert "| ours | 2 | 4 | 1 | 5 | 4 | 2 | 0.2 | 0.4 | 1e-07 | 1/8 |" in written
