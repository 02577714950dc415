"""Passwords and tokens in addresses, arguments and the environment: nowhere in what is kept or shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.display import PlainDisplay
from orchestrator.provenance import environment_text
from reports.results import TrialResult, read_sweep
from reports.tracking_records import dataset_inputs, planned_tags, shortened, trial_params
from reports.tracking_store import TrackingStore
from search_spaces.secrets import hide_secrets, is_secret_name
from tests.tiny import tiny_spec
from tests.unit.orchestrator.command_line import CommandLine
from tests.unit.reports.sweep_builder import SweepBuilder, make_scores, make_spec, trial_id
from trainers.saving import model_card

HUB = "hf_" + "aB3" * 11
CLOUD = "AKIA" + "Q2" * 8
PASSWORD = "Hünter2/&'x"
ENVIRONMENT = {
    "HF_TOKEN": HUB,
    "AWS_ACCESS_KEY_ID": CLOUD,
    "AWS_SECRET_ACCESS_KEY": "abcd/efgh+ijkl",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "PGPASSWORD": "correct-horse",
    "RAY_AUTH_MODE": "disabled",
    "GOOGLE_APPLICATION_CREDENTIALS": "/etc/passwd",
    "DB_KEY": "short",
}
SHOWN = ("Hünter2", "H%C3%BCnter2", "correct-horse", "abcd/efgh", HUB, CLOUD, "hunter2")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://me:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://u:p@ss@db:5432/m", "postgresql+psycopg2://***@db:5432/m"),
        ("mysql://u:pa/ss@db/m", "mysql://***@db/m"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://host/x?a=1&token=hunter2&b=2", "https://host/x?a=1&token=***&b=2"),
        ("https://host/x?X-Amz-Signature=hunter2", "https://host/x?X-Amz-Signature=***"),
        ("db?password=hunter2 ok", "db?password=*** ok"),
        ("{'password': 'hunter2', 'user': 'me'}", "{'password': '***', 'user': 'me'}"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ("api_key=hunter2", "api_key=***"),
        (f"using {HUB}.", "using ***."),
        (f"key {CLOUD}", "key ***"),
        ("ghp_" + "a1" * 18, "***"),
        ("sk-proj-" + "a1" * 18, "***"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "***"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY----- end", "*** end"),
        (f"said {PASSWORD}!", "said ***!"),
        ("u:H%C3%BCnter2%2F%26%27x", "u:***"),
        (f"{[PASSWORD]!r}", '["***"]'),
        (json.dumps([PASSWORD]), '["***"]'),
    ],
)
def test_secrets_are_hidden(text: str, hidden: str) -> None:
    assert hide_secrets(text, ENVIRONMENT) == hidden
    assert hide_secrets(hidden, ENVIRONMENT) == hidden


@pytest.mark.parametrize(
    "address", ["https://{}@host/x", "https://{}:x@host/x", "db://me:{}@host/x"]
)
def test_long_passwords_are_hidden(address: str) -> None:
    scheme = address.partition("://")[0]
    for long in ("a1" * 750, "a:" * 750, "a@" * 750):
        assert hide_secrets(address.format(long), {}) == f"{scheme}://***@host/x"


@pytest.mark.parametrize(
    "piece", ["://", "://:", "http://aaaa:", "http://a:80/", "http://a:a/", ":a"]
)
def test_texts_made_to_be_searched_for_long_are_read_to_their_end(piece: str) -> None:
    hostile = "http://" + piece * (100_000 // len(piece))
    assert hide_secrets(hostile, {}) == hostile
    found = hide_secrets(f"{hostile} http://me:hunter2@host", {})
    assert found == f"{hostile} http://***@host"


@pytest.mark.parametrize(
    "text",
    [
        "python -m orchestrator sweep paper_grid --set max_new_tokens=64",
        "the tokenizer's pad_token=<|endoftext|>, eos_token: </s>",
        "sqlite:////tmp/mlflow.db http://127.0.0.1:5000/#/experiments/1 https://host/@me/x",
        "a@b.example and 10:30@noon, key=value, bearer of bad news",
        "disabled /etc/passwd short",
        "Patient: my secret is that I drink. Therapist: Tell me.",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text, ENVIRONMENT) == text


def test_names_that_are_secret() -> None:
    secret = ("HF_TOKEN", "WANDB_API_KEY", "pgpassword", "CLIENT_SECRET_2", "AZURE_CREDENTIALS")
    plain = ("TOKENIZERS_PARALLELISM", "SSH_AUTH_SOCK", "RAY_AUTH_MODE", "KEYBOARD", "HOME", "PWD")
    assert all(map(is_secret_name, secret))
    assert not any(map(is_secret_name, plain))


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return CommandLine(tmp_path, monkeypatch, capsys)


SPILLED = f"http://me:hunter2@host/ {HUB} {PASSWORD} correct-horse password=hunter2"


def check_hidden(text: str) -> None:
    assert not [secret for secret in SHOWN if secret in text]


def test_a_command_with_secrets_is_planned_without(line: CommandLine) -> None:
    line.write(
        "grid.yaml", "name: x\nstages: [{name: s, methods: [{kind: base, model: medium}]}]\n"
    )
    template = f"{{prompt}} {SPILLED}"
    options = ("--scale", "laptop", "--set", "bertscore_model=null")
    done = line.run(
        "plan", "grid.yaml", *options, "--set", f'prompt_template="{template}"', "--json"
    )
    assert done.code == 0, done.err
    command = done.json["command"]
    assert "{prompt} http://***@host/ *** *** *** password=***" in command
    assert done.json["trials"][0]["spec"]["decoding"]["prompt_template"] == template
    refused = line.run("plan", "grid.yaml", *options, "--corpus", SPILLED)
    assert refused.code == 2
    check_hidden(refused.err)


def test_a_report_holds_none_of_them(line: CommandLine) -> None:
    folder = line.folder / "given"
    builder = SweepBuilder(folder)
    builder.plan["command"] = SPILLED
    builder.stage("first", None)
    builder.fail(trial_id(1), "x", make_spec(), "error", f"cannot reach {SPILLED}")
    failure = folder / "trials" / trial_id(1) / "failure.json"
    failure.write_text(json.dumps(json.loads(failure.read_text()) | {"traceback": SPILLED}))
    builder.done(trial_id(2), "y", make_spec(), make_scores(1.0))
    builder.finish()
    for name in ("env.txt", "sweep.yaml"):
        (folder / name).write_text(SPILLED)
    for command in (("report", "given"), ("status", "given"), ("status", "given", "--json")):
        done = line.run(*command)
        check_hidden(done.out + done.err)
    for file in (folder / "report").rglob("*.*"):
        if file.suffix != ".png":
            check_hidden(file.read_text())
    sweep = read_sweep(folder)
    result = sweep.trials[trial_id(2)]
    assert isinstance(result, TrialResult)
    spec = make_spec(model=SPILLED)
    logged = [trial_params(spec), planned_tags("x", "y", ["z"], spec), shortened(SPILLED, 99)]
    logged += [one.dataset.source for one in dataset_inputs(result, SPILLED)]
    check_hidden(str(logged))


def test_what_is_written_elsewhere_holds_none(line: CommandLine) -> None:
    spec = tiny_spec(SPILLED)
    check_hidden(model_card(spec))
    check_hidden(environment_text())
    console = Console(record=True, width=500)
    PlainDisplay(console).say(f"\x1b[2J{SPILLED}\n\u202eforged")
    shown = console.export_text()
    check_hidden(shown)
    assert r"\u001b[2Jhttp://***@host/" in shown
    assert r"\n\u202eforged" in shown
    check_hidden(repr(TrackingStore(SPILLED)))
