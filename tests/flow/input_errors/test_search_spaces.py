"""Malformed search spaces and settings are refused before anything starts."""

from __future__ import annotations

import pytest

from tests.flow.input_errors.refusals import check_refused, sweep
from tests.flow.input_errors.spoilt_spaces import SPACE, SPOILT, Spoilt
from tests.unit.orchestrator.command_line import CommandLine


def test_the_inputs_that_the_others_spoil_are_right(line: CommandLine) -> None:
    done = line.run("plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda spoilt: spoilt.name)
def test_a_spoilt_search_space_is_refused(line: CommandLine, spoilt: Spoilt) -> None:
    assert SPACE.count(spoilt.old) == 1
    line.write("grid.yaml", SPACE.replace(spoilt.old, spoilt.new))
    line.write("models/gpt2/config.json", "{}")
    line.write("models/gpt2/tokenizer.json", "{}")
    for name in ("model.safetensors", "tokenizer.json"):
        line.write(f"models/broken/{name}", "")
    line.write("models/broken/config.json", "{n_positions: 3")
    line.write("models/torn/config.json", "{}")
    for name in ("model.safetensors", "tokenizer.json"):
        line.write(f"models/torn/{name}", "half")
    corpus = ("--corpus", "corpus.csv") if "\n  corpus:" not in spoilt.new else ()
    done = line.run("sweep", "grid.yaml", "--scale", "laptop", *corpus)
    check_refused(done, *spoilt.says)


def test_problems_of_several_kinds_are_told_together(line: CommandLine) -> None:
    text = SPACE.replace("max_length: 96", "max_length: 600").replace("null", "./no-encoder")
    line.write("grid.yaml", text + "  - {name: third, methods: [{kind: sft, model: ./none}]}\n")
    done = sweep(line, "--corpus", "none.csv")
    check_refused(
        done,
        "none.csv: ",
        "metrics: bertscore_model",
        "stage first: `max_length + virtual tokens <= 512`",
        "model: the folder must exist, got './none'",
    )
    lines = done.err.splitlines()
    assert all(text.startswith("error: ") for text in lines)
    assert len(set(lines)) == len(lines), "a problem is told once"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: must hold a mapping with `name` and `stages`, but is an empty file"),
        (b"- name: tiny\n", "line 1: must hold a mapping with `name` and `stages`, but is a list"),
        (b"just words\n", "line 1: must hold a mapping with `name` and `stages`, but is a str"),
        (SPACE.encode("utf-16"), "line 1: must be UTF-8, but is UTF-16"),
        (
            SPACE.replace("tiny", "tïny").encode("latin-1"),
            "line 1: must be UTF-8, but has the byte",
        ),
        (
            b"#" * (1 << 20) + b"\n",
            "a search space must be smaller than 1 MiB, got '1048577 bytes'",
        ),
        (b"a: " + b"[" * 20_000, "is nested too deeply"),
    ],
    ids=["empty", "list", "text", "utf-16", "latin-1", "large", "deep"],
)
def test_a_file_that_is_no_search_space_is_refused(
    line: CommandLine, content: bytes, says: str
) -> None:
    line.write("grid.yaml", content)
    check_refused(sweep(line), f"error: grid.yaml: {says}")


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("paper_gird", ("got 'paper_gird'; did you mean paper_grid?",)),
        ("gird.yaml", ("got 'gird.yaml'; did you mean grid.yaml?",)),
        (".", ("not a folder, got '.'",)),
        ("x" * 300, ("must be a file or one of acts_grid, delta_grid, paper_grid, smoke",)),
    ],
)
def test_a_search_space_that_is_not_there_is_refused(
    line: CommandLine, space: str, says: tuple[str, ...]
) -> None:
    check_refused(sweep(line, space=space), "search space: ", *says)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("batch_size", "error: --set: must be written key=value, got 'batch_size'"),
        (
            "batchsize=1",
            "--set: batchsize: unknown field, got 'batchsize'; did you mean batch_size?",
        ),
        ("lr=1e-4", "--set: lr: unknown field, got 'lr'; did you mean learning_rate?"),
        ("batch_size=0", "--set: batch_size: must be greater than 0, got 0"),
        ("learning_rate=nan", "--set: learning_rate: must be a finite number, got 'nan'"),
        ("beams=[1", "--set: beams: the value is not plain YAML, got '[1'"),
        ("seeds=[]", "--set: seeds: needs at least one value, got []"),
        ("valid_beams=2", "--set: valid_beams: must be a list, got 2"),
        ("valid_beams=[2]", "stage second.from.best: `valid_beams` must hold beam 1"),
    ],
)
def test_a_wrong_setting_is_refused(line: CommandLine, setting: str, says: str) -> None:
    check_refused(sweep(line, "--set", setting), says)
