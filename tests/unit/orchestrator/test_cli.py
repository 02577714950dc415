"""What people type and what scripts read."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator import cli
from tests.flow.sweeps import write_corpus
from tests.unit.orchestrator.command_line import CommandLine, Finished
from tests.unit.orchestrator.trials import write_failure, write_result

COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]

SPACE = """\
name: tiny
defaults: {model: medium, max_length: 96, max_new_tokens: 8, bertscore_model: null}
stages:
  - name: first
    table: parameters
    grid: {batch_size: [1, 2]}
    methods: [{kind: sft}]
  - name: second
    from: {stage: first, best: valid/rouge1_beam1}
    methods: [{kind: base}, {kind: delta, rank: 2, learning_rate: 1.0e-3}]
"""


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    here = CommandLine(tmp_path, monkeypatch, capsys)
    here.write("grid.yaml", SPACE)
    write_corpus(tmp_path / "corpus.csv")
    return here


def plan(line: CommandLine, *options: str) -> Finished:
    done = line.run("plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv", *options)
    assert done.code == 0, done.err
    return done


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


def test_the_commands_are_those_of_the_readme() -> None:
    readme = (Path(cli.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    block = readme.split("## Commands")[1].split("```")[1]
    named = re.findall(r"python -m orchestrator (\w+)", block)
    assert sorted(named) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(line: CommandLine, command: str) -> None:
    done = line.run(command, "--help")
    assert done.code == 0
    assert f"orchestrator {command}" in done.out
    assert done.err == ""


def test_every_option_of_the_readme_is_there(line: CommandLine) -> None:
    readme = (Path(cli.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    block = readme.split("## Commands")[1].split("```")[1]
    for part in block.split("python -m orchestrator ")[1:]:
        command = part.split()[0]
        told = line.run(command, "--help").out
        for option in re.findall(r"\[(--[a-z-]+)", part):
            assert option in told, f"{command} {option}"


def test_help_names_every_command(line: CommandLine) -> None:
    done = line.run("--help")
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)


def test_no_command_is_wrong_usage_with_help(line: CommandLine) -> None:
    done = line.run()
    assert done.code == 2
    assert "sweep" in done.out + done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("unknown",),
        ("sweep",),
        ("plan", "a", "b"),
        ("plan", "grid.yaml", "--unknown"),
        ("plan", "grid.yaml", "--scale", "huge"),
        ("sweep", "grid.yaml", "--cpus", "-1"),
        ("sweep", "grid.yaml", "--cpus", "1.5"),
        ("corpus", "sample", "--loader", "v9"),
        ("dashboard", "--port", "0"),
    ],
)
def test_wrong_usage_is_exit_code_2(line: CommandLine, arguments: tuple[str, ...]) -> None:
    done = line.run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Error" in done.err
    assert "Traceback" not in done.err


def test_a_plan_is_one_json_object_with_ids(line: CommandLine) -> None:
    done = plan(line, "--json")
    assert done.err == ""
    data = done.json
    assert (data["name"], data["scale"]) == ("tiny", "laptop")
    assert data["corpus"]["sessions"] == 10
    assert data["command"].startswith("python -m orchestrator plan grid.yaml")
    first, second = data["stages"]
    ids = [trial["id"] for trial in data["trials"]]
    assert first["trials"] == ids
    assert len(set(ids)) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)
    assert [trial["status"] for trial in data["trials"]] == ["pending", "pending"]
    assert data["trials"][0]["name"] == "laptop-medium_sft_v1_lr5e-5_bs1_s0"
    assert data["trials"][0]["spec"]["training"]["batch_size"] == 1
    assert second["waits_for_winner"]
    assert second["trials"] == []
    assert second["from"] == {"stage": "first", "best": "valid/rouge1_beam1", "mode": "max"}
    assert second["waiting"] == [
        {"kind": "base", "settings": {}},
        {"kind": "delta", "settings": {"rank": 2, "learning_rate": 1e-3}},
    ]


def test_a_plan_for_people(line: CommandLine) -> None:
    out = plan(line).out
    assert "sweep tiny, scale laptop (asked for with --scale)" in out
    assert "corpus corpus.csv (hope, 10 sessions)" in out
    assert "stage first: 2 trials" in out
    assert "laptop-medium_sft_v1_lr5e-5_bs2_s0" in out
    assert "stage second: waits for the winner of first (max of valid/rouge1_beam1)" in out
    assert "delta (rank=2, learning_rate=0.001)" in out


def test_a_plan_writes_nothing_and_says_the_same_again(line: CommandLine) -> None:
    before = files(line.folder)
    assert plan(line, "--json") == plan(line, "--json")
    assert files(line.folder) == before


def test_ids_follow_the_content_of_the_corpus_and_not_its_path(line: CommandLine) -> None:
    def ids(corpus: str) -> list[str]:
        done = line.run("plan", "grid.yaml", "--scale", "laptop", "--corpus", corpus, "--json")
        return [trial["id"] for trial in done.json["trials"]]

    line.write("elsewhere/copy.csv", (line.folder / "corpus.csv").read_bytes())
    content = (line.folder / "corpus.csv").read_text()
    line.write("other.csv", content.replace("sleep", "dream", 1))
    assert ids("elsewhere/copy.csv") == ids("corpus.csv") != ids("other.csv")


def test_a_plan_goes_on_from_results(line: CommandLine) -> None:
    from orchestrator.storage import SweepFolder

    folder = SweepFolder(line.folder / "runs" / "tiny")
    slow, fast = (trial["id"] for trial in plan(line, "--json").json["trials"])
    write_result(folder, slow, rouge1_beam1=1.0)
    write_failure(folder, fast)
    data = plan(line, "--json").json
    assert [t["status"] for t in data["trials"]] == ["done", "failed", "pending", "pending"]
    assert [stage["waits_for_winner"] for stage in data["stages"]] == [False, False]
    assert data["stages"][0]["winner"] == slow
    assert [t["spec"]["training"]["batch_size"] for t in data["trials"][2:]] == [1, 1]
    assert data["trials"][3]["spec"]["training"]["learning_rate"] == 1e-3


def test_settings_change_the_plan(line: CommandLine) -> None:
    data = plan(line, "--set", "batch_size=[1, 2, 4]", "--set", "seeds=[0, 1]", "--json").json
    assert len(data["trials"]) == 6


def test_a_sweep_with_a_wrong_input_is_not_started(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sweep.run_sweep", lambda *_: pytest.fail("it was started"))
    done = line.run("sweep", "grid.yaml", "--scale", "laptop", "--corpus", "none.csv")
    assert done.code == 2
    assert not (line.folder / "runs").exists()


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_sweep_says_how_to_go_on(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sweep.run_sweep", interrupted)
    done = line.run("sweep", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv", "--json")
    assert done.code == 130
    assert done.out == ""
    assert "to continue: python -m orchestrator sweep grid.yaml --scale laptop" in done.err


@pytest.mark.parametrize(
    ("trials", "code"),
    [
        ({"total": 2, "done": 2, "failed": 0, "stopped_early": 0, "pending": 0}, 0),
        ({"total": 2, "done": 1, "failed": 1, "stopped_early": 0, "pending": 0}, 1),
        ({"total": 2, "done": 1, "failed": 0, "stopped_early": 0, "pending": 1}, 1),
    ],
)
def test_exit_codes_tell_how_a_sweep_ended(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch, trials: dict[str, int], code: int
) -> None:
    line.write("grid.yaml", SPACE.split("  - name: second")[0])
    failures = [{"id": "i", "name": "n", "reason": "diverged", "message": "loss is NaN"}]
    status = {
        "sweep": "tiny",
        "trials": trials,
        "failures": failures * trials["failed"],
        "tables": {"table1": {"md": "t.md"}},
    }
    monkeypatch.setattr("orchestrator.sweep.run_sweep", lambda *_: status)
    arguments = ("sweep", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv")
    done = line.run(*arguments)
    assert done.code == code
    assert f"sweep tiny: 2 trials, {trials['done']} done" in done.out
    assert ("failed, diverged:\n  n (i): loss is NaN" in done.out) == bool(trials["failed"])
    done = line.run(*arguments, "--json")
    assert done.code == code
    assert done.json == status


def test_a_corpus_is_described(line: CommandLine) -> None:
    done = line.run("corpus", "corpus.csv", "--loader", "v2", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["sessions"] == 10
    assert done.json["loader"] == "v2"
    done = line.run("corpus", "corpus.csv")
    assert "sessions: 10" in done.out
    assert "acts: " in done.out


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt, 130), (typer.Abort, 130), (BrokenPipeError, 1)],
)
def test_endings_from_outside_have_their_codes(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], code: int
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise error

    if error is BrokenPipeError:
        # Else the test's own output is gone.
        monkeypatch.setattr("os.dup2", lambda *_: None)
        monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    monkeypatch.setattr(cli, "app", end)
    assert line.run("doctor").code == code


def test_the_command_that_is_recorded_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "sweep", "my grid.yaml", "--set", "beams=[1, 2]"])
    assert cli._command() == "python -m orchestrator sweep 'my grid.yaml' --set 'beams=[1, 2]'"


def test_trials_that_differ_in_an_unnamed_field_have_names_of_their_own(line: CommandLine) -> None:
    done = plan(line, "--set", "warmup_steps=[0, 2]", "--json")
    trials = done.json["trials"]
    assert len({trial["name"] for trial in trials}) == len(trials) == 4
    assert all(trial["name"].endswith(f"_{trial['id'][:6]}") for trial in trials)
    assert all("_bs1_s0" in t["name"] or "_bs2_s0" in t["name"] for t in trials)


def test_a_dashboard_needs_results_and_a_free_port(line: CommandLine) -> None:
    missing = line.run("dashboard", "runs/nope")
    assert missing.code == 2
    assert "runs/nope" in missing.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = line.run("dashboard", str(line.folder), "--port", str(port))
    assert done.code == 2
    assert "--port" in done.err
    assert str(port) in done.err


def test_a_corpus_with_columns_of_its_own(line: CommandLine) -> None:
    rows = [f"{s},{'u' if t % 2 == 0 else 'b'},words {s} {t}" for s in range(6) for t in range(6)]
    line.write("own.csv", "conv,who,said\n" + "\n".join(rows) + "\n")
    names = ("session=conv", "speaker=who", "text=said", "patient=u", "therapist=b")
    columns = [part for name in names for part in ("--columns", name)]
    done = line.run("corpus", "own.csv", "--json", *columns)
    assert done.code == 0, done.err
    assert done.json["sessions"] == 6
    assert done.json["pairs"] == 18
