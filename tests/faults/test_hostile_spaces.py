"""Search spaces and settings that somebody means ill with, through the command line."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tests.faults.hostile import check_refused, nothing_written
from tests.unit.orchestrator.command_line import CommandLine

SPACE = """\
name: tiny
defaults: {model: medium, max_length: 96, max_new_tokens: 8, bertscore_model: null}
stages:
  - name: first
    methods: [{kind: sft}]
"""
RULE = "it names a folder"
BIG = "a whole number must be below 2^63"


def named(name: str) -> str:
    return SPACE.replace("name: tiny", f"name: {name}")


def with_stage(name: str) -> str:
    return SPACE.replace("name: first", f"name: {name}")


def with_default(text: str) -> str:
    return SPACE.replace("max_length: 96", text)


def axes(*sizes: int) -> str:
    fields = ("epochs", "batch_size", "warmup_steps", "max_steps")
    lists = (str(list(range(1, size + 1))) for size in sizes)
    grid = ", ".join(f"{name}: {values}" for name, values in zip(fields, lists, strict=False))
    return f"{SPACE}    grid: {{{grid}}}\n"


def doubling(first: str, step: str) -> str:
    return first + "".join(
        step.format(name=f"a{number}", aliases=", ".join([f"*a{number - 1}"] * 9))
        for number in range(1, 12)
    )


HOSTILE: dict[str, tuple[str, str]] = {
    "object that runs a command": (
        named("!!python/object/apply:os.system ['touch canary']"),
        "line 1: values must be plain, without a tag",
    ),
    "object by a tag of its own": (
        "%TAG ! tag:yaml.org,2002:python/\n---\n"
        + named("!object/apply:os.system ['touch canary']"),
        "line 3: values must be plain, without a tag",
    ),
    "module": (named("!!python/module:os"), "without a tag, got '!!python/module:os'"),
    "new object": (named("!!python/object/new:os.system [touch canary]"), "without a tag"),
    "binary": (named("!!binary dGlueQ=="), "without a tag, got '!!binary'"),
    "billion laughs": (
        doubling("a0: &a0 [x]\n", "{name}: &{name} [{aliases}]\n"),
        "holds more than 10000 values",
    ),
    "billion merges": (
        doubling("a0: &a0 {x: 1}\n", "{name}: &{name}\n  <<: [{aliases}]\n"),
        "holds more than 10000 values",
    ),
    "alias to itself": ("a: &a\n  <<: *a\n", "line 2: aliases to a parent cannot be resolved"),
    "deep flow": ("a: " + "{a: " * 20_000, "is nested too deeply"),
    "deep block": ("".join(" " * depth + "a:\n" for depth in range(1200)), "is nested too deeply"),
    "50 MB": (SPACE + "#" * 50_000_000, "must be smaller than 1 MiB, got '5000"),
    "key twice": (f"{SPACE}name: other\n", "a key may stand once, but stands in line 1 too"),
    "two documents": (f"{SPACE}---\n{SPACE}", "is not valid YAML: but found another document"),
    "5,000 digits": (with_default(f"epochs: {'9' * 5000}"), BIG),
    "5,000 hexadecimal digits": (with_default(f"epochs: 0x{'f' * 5000}"), BIG),
    "octal seeds": (f"{SPACE}seeds: [0{'7' * 5000}]\n", BIG),
    "sexagesimal digits": (named("1" + ":59" * 3000), BIG),
    "sexagesimal name": (named("1:30"), f"{RULE}"),
    "sexagesimal fraction": (named("1" + ":59" * 3000 + ".5"), "is not valid YAML"),
    "digits as text": (with_default(f"epochs: '{'9' * 5000}'"), "defaults.epochs (line 2)"),
    "epochs beyond 64 bits as text": (
        with_default(f"epochs: '{2**63}'"),
        "defaults.epochs (line 2): must be less than",
    ),
    "date for a name": (named("2024-01-01"), RULE),
    "impossible date": (named("2024-13-45"), "is not valid YAML: month must be in 1..12"),
    "not a number": (with_default("learning_rate: .nan"), "must be a finite number"),
    "infinite": (with_default("learning_rate: -.inf"), "must be a finite number"),
    "overflow": (with_default("learning_rate: 1e999"), "must be a finite number"),
    "key that is a number": (f"{SPACE}1: 2\n", "unknown key"),
    "key that is nothing": (f"{SPACE}~: 2\n", "unknown key"),
    "key that is a list": (f"{SPACE}? [1, 2]\n: 3\n", "found unhashable key"),
    "field that is a number": (with_default("1: 2"), "defaults.1 (line 2): unknown field"),
    "key that clears the screen": (f'{SPACE}"\\e[2J\\u202e": 1\n', r"\u001b[2J\u202e"),
    "key that is half a character": (f'{SPACE}"\\ud800": 1\n', r"\ud800"),
    "key of 100,000 characters": (f"{SPACE}? {'k' * 100_000}\n: 1\n", "unknown key"),
    "NUL": (named("ti\0ny"), "line 1: NUL bytes cannot stand in YAML"),
    "escape character": (named("ti\x1b[31mny"), "a control character cannot stand in YAML"),
    "grid of a billion": (axes(1000, 1000, 1000), "tiny: a search space may have at most 100,000"),
    "stages of 62,500 each": (
        axes(250, 250) + axes(250, 250).split("stages:\n")[1].replace("first", "second"),
        "at most 100,000 combinations, got 125000",
    ),
    "model of half a character": (
        with_default('model: "\\ud800"').replace("model: medium, ", ""),
        "model",
    ),
    "model of 100,000 characters": (
        SPACE.replace("medium", "m" * 100_000),
        "model",
    ),
    "model with a NUL": (SPACE.replace("medium", '"a\\0b"'), "model"),
    "model above everything": (
        SPACE.replace("medium", "../" * 40 + "etc"),
        "etc: the folder must hold config.json",
    ),
    "corpus with a NUL": (with_default('corpus: "a\\0b"'), "corpus"),
}
NAMES = (
    *("../../x", "/abs", "a/b", "a\\b", "..", ".", ".hidden", "-rf", "CON", "nul.txt", "LPT1"),
    *("mlflow.db", "mlartifacts", "x.", "'x\n\n  y'", "'\"<script>'", "'=1+1'", "'$HOME'", "'a;b'"),
    *('"\\e[31mred"', '"a\\u202eb"', '"a\\0b"', '"\\ud800"', "x" * 10_000, "'* {}'", "~x", "ünder"),
)


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_search_space_is_refused(line: CommandLine, name: str) -> None:
    text, says = HOSTILE[name]
    line.write("grid.yaml", text)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with nothing_written(line.folder):
        check_refused(line.run("plan", "grid.yaml", "--scale", "laptop"), says)
    assert time.process_time() - began < 10
    # The text itself, read once more; KiB.
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 600_000, "an expansion would take gigabytes"


@pytest.mark.parametrize("place", ["space", "stage", "setting"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_that_could_lead_elsewhere_is_refused(
    line: CommandLine, name: str, place: str
) -> None:
    line.write("grid.yaml", with_stage(name) if place == "stage" else named(name))
    settings = ()
    if place == "setting":
        line.write("grid.yaml", SPACE)
        settings = ("--set", f"name={name}")
    with nothing_written(line.folder):
        done = line.run("plan", "grid.yaml", "--scale", "laptop", *settings)
    check_refused(done)
    assert "grid.yaml: " in done.err or "--set: name" in done.err


@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "folder"])
def test_what_is_no_file_is_not_read(line: CommandLine, kind: str) -> None:
    place = line.folder / "grid.yaml"
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "device":
            place.symlink_to("/dev/zero")
        case "loop":
            place.symlink_to(place)
        case "folder":
            place.mkdir()
    done = line.run("plan", "grid.yaml", "--scale", "laptop")
    check_refused(done, "search space: must be a file", "got 'grid.yaml'")


@pytest.mark.parametrize("link", ["tiny", "tiny/trials", "tiny/report", "tiny/trials/0123"])
def test_results_stay_under_out(line: CommandLine, link: str) -> None:
    line.write("grid.yaml", SPACE)
    elsewhere = line.folder / "elsewhere"
    elsewhere.mkdir()
    place = line.folder / "runs" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere, target_is_directory=True)
    with nothing_written(line.folder):
        done = line.run("plan", "grid.yaml", "--scale", "laptop")
    check_refused(done, f"--out: runs/{link}: results must stay under --out")
    place.unlink()
    inside = line.folder / "runs" / "big"
    inside.mkdir()
    place.symlink_to(inside, target_is_directory=True)
    assert line.run("plan", "grid.yaml", "--scale", "laptop").code == 0
