"""The plan as people and scripts get it, however many trials it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import output
from orchestrator.storage import SweepFolder
from search_spaces.identity import spec_from_dict
from tests.flow.sweeps import write_corpus
from tests.unit.orchestrator.command_line import CommandLine, Finished
from tests.unit.orchestrator.trials import write_failure, write_result

SPACE = """\
name: tiny
defaults: {model: medium, max_length: 96, max_new_tokens: 8, bertscore_model: null}
stages:
  - name: first
    grid: {learning_rate: [1.0e-3, 1.0e-4], batch_size: [1, 2]}
    methods: [{kind: sft}, {kind: delta, target_modules: [c_attn]}]
    seeds: [0, 1, 2]
  - {name: second, from: {stage: first, best: valid/loss, mode: min}, methods: [{kind: sft}]}
"""


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    here = CommandLine(tmp_path, monkeypatch, capsys)
    write_corpus(tmp_path / "corpus.csv")
    here.write("grid.yaml", SPACE)
    return here


def plan(line: CommandLine, *options: str) -> Finished:
    done = line.run("plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv", *options)
    assert done.code == 0, done.err
    return done


def test_a_trial_is_a_line_that_says_all_of_it(line: CommandLine) -> None:
    done = plan(line, "--json")
    data = done.json
    assert len(data["trials"]) == len({trial["id"] for trial in data["trials"]}) == 24
    assert data["stages"][0]["trials"] == [trial["id"] for trial in data["trials"]]
    assert data["stages"][1]["waits_for_winner"]
    for trial in data["trials"]:
        assert spec_from_dict(trial["spec"]).training.max_length == 96
        assert sum(trial["id"] in text and '"spec"' in text for text in done.out.splitlines()) == 1


def test_what_is_done_or_failed_is_told(line: CommandLine) -> None:
    ids = [trial["id"] for trial in plan(line, "--json").json["trials"]]
    folder = SweepFolder(line.folder / "runs" / "tiny")
    write_result(folder, ids[1], rouge1=1.0)
    write_failure(folder, ids[2])
    folder.trial(ids[3]).mkdir()
    statuses = [trial["status"] for trial in plan(line, "--json").json["trials"]]
    assert statuses == ["pending", "done", "failed", *["pending"] * 21]
    assert "stage first: 24 trials (1 done, 1 failed)" in plan(line).out


def test_a_long_list_is_cut_for_people(line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_SHOWN_TRIALS", 10)
    out = plan(line).out
    assert out.count("  pending ") == 10
    assert "... and 14 more (all of them: --json)" in out
    assert len(plan(line, "--json").json["trials"]) == 24
