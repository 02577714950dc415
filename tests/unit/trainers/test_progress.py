from __future__ import annotations

import csv
from pathlib import Path

from trainers.progress import StepRow, write_steps


def test_a_cell_that_was_not_measured_is_empty(tmp_path: Path) -> None:
    write_steps(
        tmp_path / "train.csv",
        [
            StepRow(1, 0.5, train_loss=0.0, learning_rate=0.0, grad_norm=1.5, seconds=0.25),
            StepRow(2, 1.0, valid_loss=2.5),
        ],
    )
    assert (tmp_path / "train.csv").read_bytes() == (
        b"step,epoch,train_loss,valid_loss,learning_rate,grad_norm,seconds\n"
        b"1,0.5,0.0,,0.0,1.5,0.25\n"
        b"2,1.0,,2.5,,,\n"
    )


def test_no_row_is_a_heading(tmp_path: Path) -> None:
    write_steps(tmp_path / "train.csv", [])
    with (tmp_path / "train.csv").open(newline="") as stream:
        (heading,) = csv.reader(stream)
    assert heading[:3] == ["step", "epoch", "train_loss"]
