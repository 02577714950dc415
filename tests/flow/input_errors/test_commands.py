"""Wrong usage, and inputs of the other commands that are not what they should be, are refused."""

from __future__ import annotations

import pytest

from tests.flow.input_errors.refusals import check_refused, sweep
from tests.unit.orchestrator.command_line import CommandLine


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("swep", "grid.yaml"), ("swep",)),
        (("sweep",), ("NAME_OR_FILE",)),
        (("sweep", "grid.yaml", "smoke"), ("smoke",)),
        (("sweep", "grid.yaml", "--scale", "labtop"), ("--scale", "labtop", "laptop")),
        (("sweep", "grid.yaml", "--cpus", "0"), ("--cpus", "0")),
        (("sweep", "grid.yaml", "--cpus", "many"), ("--cpus", "many")),
        (("sweep", "grid.yaml", "--retry-faild"), ("--retry-faild",)),
        (("sweep", "grid.yaml", "--out"), ("--out",)),
        (("corpus", "corpus.csv", "--loader", "v3"), ("--loader", "v3", "v1", "shift")),
        (("status",), ("SWEEP_DIR",)),
        (("dashboard", "--port", "70000"), ("--port", "70000")),
    ],
)
def test_wrong_usage_is_refused(
    line: CommandLine, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    check_refused(line.run(*arguments), *says)


@pytest.mark.parametrize("out", ["corpus.csv", "corpus.csv/runs"])
def test_results_cannot_go_where_a_file_is(line: CommandLine, out: str) -> None:
    check_refused(sweep(line, "--out", out), "--out: must be a folder, got 'corpus.csv'")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", 'replies.jsonl: must hold one object with "reply" and "reference" a line'),
        (b'{"reply": "a", "reference": "b"}\n{"reply": "a"', "replies.jsonl: line 2: must be JSON"),
        (b'["a", "b"]\n', "replies.jsonl: line 1: must be an object"),
        (b'{"replay": "a", "reference": "b"}\n', 'line 1: must have the key "reply"'),
        (b'{"reply": 3, "reference": "b"}\n', "line 1: \"reply\" must be a string, got '3'"),
        (b'{"reply": "\xe9", "reference": "b"}\n', "line 1: must be UTF-8, but byte 12 is not"),
        (b'{"reply": "\0", "reference": "b"}\n', "line 1: must be text, but holds a NUL byte"),
    ],
)
def test_replies_that_cannot_be_scored_are_refused(
    line: CommandLine, content: bytes, says: str
) -> None:
    line.write("replies.jsonl", content)
    check_refused(line.run("score", "replies.jsonl"), says)


def test_replies_that_are_not_there_are_refused(line: CommandLine) -> None:
    line.write("replies.jsonl", "")
    check_refused(line.run("score", "reply.jsonl"), "reply.jsonl: ", "did you mean replies.jsonl?")


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (None, "plan.json: a sweep's folder must hold its plan"),
        (b"", "plan.json: a sweep's folder must hold its plan"),
        (b'{"name": "tiny", "stag', "plan.json: a sweep's folder must hold its plan"),
        (b"[]", "plan.json: a sweep's folder must hold its plan"),
        (b'{"name": "tiny", "stages": [], "trials": [3]}', "plan.json: a sweep's folder"),
    ],
    ids=["none", "empty", "truncated", "list", "strange"],
)
def test_a_folder_that_is_no_sweep_is_refused(
    line: CommandLine, command: str, plan: bytes | None, says: str
) -> None:
    (line.folder / "old").mkdir()
    if plan is not None:
        line.write("old/plan.json", plan)
    check_refused(line.run(command, "old"), f"old/{says}")
    check_refused(line.run(command, "older"), "older/plan.json")


def test_a_dashboard_without_results_is_refused(line: CommandLine) -> None:
    check_refused(
        line.run("dashboard", "results/tiny"), "must be a sweep's results", "results/tiny"
    )
    (line.folder / "results" / "tiny").mkdir(parents=True)
    check_refused(line.run("dashboard", "results/tiny"), "there is no MLflow store yet")


def test_a_path_that_is_no_text(line: CommandLine) -> None:
    done = sweep(line, "--corpus", "b\udce4d.csv")
    assert done.code == 2
    assert "must be UTF-8 text" in done.err
    assert "b\\udce4d.csv" in done.err
