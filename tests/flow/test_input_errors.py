"""Malformed inputs through the real command line: exit code 2, what to mend, and nothing started."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flow.sweeps import write_corpus
from tests.unit.orchestrator.command_line import CommandLine, Finished

SPACE = """\
name: tiny
defaults:
  model: medium
  max_length: 96
  max_new_tokens: 8
  bertscore_model: null
stages:
  - name: first
    grid: {batch_size: [1, 2]}
    methods: [{kind: sft}]
  - name: second
    from: {stage: first, best: valid/rouge1_beam1}
    methods: [{kind: base}, {kind: delta, peft_type: lora}]
"""
HEADER = "ID,Type,Utterance,Dialog_Act\n"
SECRET = "my sister's name is Ottilie"


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """A folder with a search space and a corpus that are as they should be."""
    here = CommandLine(tmp_path, monkeypatch, capsys)
    here.write("grid.yaml", SPACE)
    write_corpus(tmp_path / "corpus.csv")
    return here


@pytest.fixture(autouse=True)
def _nothing_starts(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "runs").exists(), "something was written before the input was checked"


def sweep(line: CommandLine, *options: str, space: str = "grid.yaml") -> Finished:
    corpus = () if "--corpus" in options else ("--corpus", "corpus.csv")
    return line.run("sweep", space, "--scale", "laptop", *corpus, *options)


def check_refused(done: Finished, *says: str) -> None:
    """Exit code 2, one line a problem on standard error, nothing on standard output."""
    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.strip()
    for text in says:
        assert text in done.err, f"{text!r} is not in\n{done.err}"


def test_the_inputs_that_the_others_spoil_are_right(line: CommandLine) -> None:
    done = line.run("plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv")
    assert (done.code, done.err) == (0, "")


@dataclass(frozen=True)
class Spoilt:
    """The search space with one piece replaced, and what has to be said of it."""

    name: str
    old: str
    new: str
    says: tuple[str, ...]


SPOILT = (
    Spoilt(
        "unknown key",
        "stages:",
        "stage:",
        ("grid.yaml: stage (line 7): unknown key", "got 'stage'; did you mean stages?"),
    ),
    Spoilt(
        "unknown field",
        "max_length: 96",
        "max_lenght: 96",
        ("grid.yaml: defaults.max_lenght (line 4)", "did you mean max_length?"),
    ),
    Spoilt(
        "unknown axis",
        "grid: {batch_size",
        "grid: {batchsize",
        ("grid.yaml: stages[0].grid.batchsize (line 9)", "did you mean batch_size?"),
    ),
    Spoilt(
        "number as a word",
        "batch_size: [1, 2]",
        "batch_size: [1, two]",
        ("stages[0].grid.batch_size[1] (line 9)", "must be a valid integer", "got 'two'"),
    ),
    Spoilt(
        "list for a number",
        "max_length: 96",
        "max_length: [96]",
        ("defaults.max_length (line 4)", "must be a valid integer", "got [96]"),
    ),
    Spoilt(
        "truth value for a number",
        "batch_size: [1, 2]",
        "batch_size: [yes]",
        ("stages[0].grid.batch_size[0] (line 9)", "not a truth value, got true"),
    ),
    Spoilt(
        "unknown loader",
        "batch_size: [1, 2]",
        "loader: [v1, V3]",
        ("stages[0].grid.loader[1] (line 9)", "must be v1, v2, shift, got 'V3'; did you mean v"),
    ),
    Spoilt(
        "unknown method",
        "kind: sft",
        "kind: stf",
        (
            "stages[0].methods[0].kind (line 10)",
            "must be base, sft, delta, dialogue_act, got 'stf'; did you mean sft?",
        ),
    ),
    Spoilt(
        "method as a list",
        "kind: sft",
        "kind: [sft]",
        ("stages[0].methods[0].kind (line 10)", "got ['sft']"),
    ),
    Spoilt(
        "unknown peft type",
        "peft_type: lora",
        "peft_type: loar",
        ("stages[1].methods[1].peft_type (line 13)", "got 'loar'; did you mean lora?"),
    ),
    Spoilt(
        "setting of another method",
        "kind: sft",
        "kind: sft, rank: 8",
        ("stages[0].methods[0].rank (line 10)", "unknown setting of sft, got 'rank'"),
    ),
    Spoilt(
        "winner by a test score",
        "best: valid/",
        "best: test/",
        (
            "stages[1].from.best (line 12)",
            "never on test scores, got 'test/rouge1_beam1'; did you mean valid/rouge1_beam1?",
        ),
    ),
    Spoilt(
        "winner of an unknown stage",
        "stage: first",
        "stage: frist",
        ("stages[1].from.stage (line 12)", "got 'frist'; did you mean first?"),
    ),
    Spoilt(
        "winner in an unknown direction",
        "rouge1_beam1}",
        "rouge1_beam1, mode: maximum}",
        ("stages[1].from.mode (line 12)", "got 'maximum'; did you mean max?"),
    ),
    Spoilt(
        "winner by a beam that is not decoded",
        "rouge1_beam1}",
        "rouge1_beam4}",
        ("tiny: stage second.from.best", "got [1]; did you mean valid_beams=[1, 4]?"),
    ),
    Spoilt(
        "winner by a score that is left out",
        "rouge1_beam1}",
        "bertscore_f1}",
        ("tiny: stage second.from.best: `bertscore_model` must be set, got valid/bertscore_f1",),
    ),
    Spoilt(
        "zip of unequal lengths",
        "grid: {batch_size: [1, 2]}",
        "zip: {batch_size: [1, 2], epochs: [1, 2, 3]}",
        ("stages[0].zip (line 9)", "got {'batch_size': 2, 'epochs': 3}"),
    ),
    Spoilt(
        "empty axis",
        "batch_size: [1, 2]",
        "batch_size: []",
        ("stages[0].grid.batch_size (line 9)", "an axis must have at least one value, got []"),
    ),
    Spoilt(
        "value twice in an axis",
        "batch_size: [1, 2]",
        "batch_size: [2, 2]",
        ("stages[0].grid.batch_size[1] (line 9)", "may stand once in an axis, got 2"),
    ),
    Spoilt(
        "everything excluded",
        "    methods: [{kind: sft}]",
        "    exclude: [{kind: sft}]\n    methods: [{kind: sft}]",
        ("tiny: stage first: `exclude` leaves no trial to run",),
    ),
    Spoilt(
        "negative learning rate",
        "max_length: 96",
        "learning_rate: -1.0e-4",
        ("defaults.learning_rate (line 4): must be greater than 0, got -0.0001",),
    ),
    Spoilt(
        "infinite learning rate",
        "max_length: 96",
        "learning_rate: .inf",
        ("defaults.learning_rate (line 4): must be a finite number, got inf",),
    ),
    Spoilt(
        "penalty that is no number",
        "max_length: 96",
        "length_penalty: .nan",
        ("defaults.length_penalty (line 4): must be a finite number, got nan",),
    ),
    Spoilt(
        "beam of width 0",
        "max_length: 96",
        "beams: [1, 0]",
        ("defaults.beams[1] (line 4): must be greater than 0, got 0",),
    ),
    Spoilt(
        "template without a place for the prompt",
        "max_length: 96",
        "prompt_template: 'Patient: {promt}'",
        ("defaults.prompt_template (line 4)", r"must match pattern '\{prompt\}'", "{promt}"),
    ),
    Spoilt(
        "seed as a default",
        "max_length: 96",
        "seed: 3",
        ("defaults.seed (line 4)", "got 'seed'; did you mean seeds?"),
    ),
    Spoilt(
        "no model",
        "  model: medium\n",
        "",
        ("tiny: no `model` is named in",),
    ),
    Spoilt(
        "name with a path",
        "name: tiny",
        "name: ../tiny",
        ("grid.yaml: name (line 1)", "it names a folder", "got '../tiny'"),
    ),
    Spoilt(
        "key twice",
        "  max_length: 96",
        "  max_length: 96\n  max_length: 64",
        ("grid.yaml: line 5: a key may stand once, but stands in line 4 too, got 'max_length'",),
    ),
    Spoilt(
        "tab",
        "  max_length: 96",
        "\tmax_length: 96",
        ("grid.yaml: line 4, column 1: is not valid YAML", r"'\t'"),
    ),
    Spoilt(
        "bracket left open",
        "grid: {batch_size: [1, 2]}",
        "grid: {batch_size: [1, 2}",
        ("grid.yaml: line 9, column 29: is not valid YAML", "expected ',' or ']'"),
    ),
    Spoilt(
        "Python object",
        "name: tiny",
        "name: !!python/object/apply:os.getcwd []",
        ("grid.yaml: line 1", "without a tag, got '!!python/object/apply:os.getcwd'"),
    ),
    Spoilt(
        "NUL byte", "name: tiny", "name: ti\0ny", ("grid.yaml: line 1: NUL bytes cannot stand",)
    ),
    Spoilt(
        "reply as long as the text",
        "max_new_tokens: 8",
        "max_new_tokens: 96",
        (
            "tiny: stage first: `max_new_tokens < max_length` must hold",
            "got max_new_tokens=96, max_length=96; did you mean max_new_tokens=48?",
        ),
    ),
    Spoilt(
        "text longer than the model's positions",
        "max_length: 96",
        "max_length: 513",
        (
            "tiny: stage first: `max_length + virtual tokens <= 512` must hold, "
            "the positions of laptop-medium",
            "got max_length=513, virtual tokens=0; did you mean max_length=512?",
        ),
    ),
    Spoilt(
        "no room for the published protocol's replies",
        "max_new_tokens: 8",
        "protocol: chatmgl",
        ("tiny: stage first: `max_length > 150` must hold", "got max_length=96"),
    ),
    Spoilt(
        "prefix longer than the model's positions, in a later stage",
        "peft_type: lora",
        "peft_type: prefix, num_virtual_tokens: 500",
        (
            "tiny: stage second",
            "got max_length=96, virtual tokens=500; did you mean num_virtual_tokens=416?",
        ),
    ),
    Spoilt(
        "unknown model",
        "model: medium",
        "model: gpt2-medum",
        ("model: ", "got 'gpt2-medum'; did you mean gpt2-medium?"),
    ),
    Spoilt(
        "missing model folder",
        "model: medium",
        "model: ./models/gpt3",
        ("model: the folder must exist, got './models/gpt3'; did you mean models/gpt2?",),
    ),
    Spoilt(
        "model folder without weights",
        "model: medium",
        "model: ./models/gpt2",
        ("model: models/gpt2: the folder must hold model.safetensors, got './models/gpt2'",),
    ),
    Spoilt(
        "model folder with a broken configuration",
        "model: medium",
        "model: ./models/broken",
        ("models/broken/config.json", "must be JSON"),
    ),
    Spoilt(
        "model folder with torn weights",
        "model: medium",
        "model: ./models/torn",
        ("models/torn/model.safetensors: must be whole safetensors weights",),
    ),
    Spoilt(
        "missing BERTScore folder",
        "bertscore_model: null",
        "bertscore_model: ./no-encoder",
        ("metrics: bertscore_model: the folder must exist, got './no-encoder'",),
    ),
    Spoilt(
        "unknown BERTScore encoder",
        "bertscore_model: null",
        "bertscore_model: distilbert-base-uncase",
        (
            "bertscore_model: ",
            "got 'distilbert-base-uncase'; did you mean distilbert-base-uncased?",
        ),
    ),
    Spoilt(
        "missing corpus in the search space",
        "model: medium",
        "model: medium\n  corpus: corpsu.csv",
        ("corpsu.csv: ", "this does not exist; did you mean corpus.csv?"),
    ),
    Spoilt(
        "fractions of more than all sessions",
        "max_length: 96",
        "train_fraction: 0.95",
        ("split: fractions must sum to", "train_fraction=0.95"),
    ),
)


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
        ("x" * 300, ("must be a file or one of delta_grid, paper_grid, smoke",)),
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


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


def spoil(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert content.count(old.encode()) >= 1
        return content.replace(old.encode(), new.encode(), 1)

    return change


CORPORA: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "empty": (lambda _: b"", ("bad.csv: the file must hold rows, but it is empty",)),
    "header only": (lambda _: HEADER.encode(), ("bad.csv: line 1", "only a header")),
    "missing column": (
        spoil("ID,Type", "ID,Typ"),
        ("bad.csv: line 1: column Type must be in the header", "did you mean Typ?"),
    ),
    "unknown columns": (
        lambda _: b"conversation,speeker,words\n1,P,a\n",
        ("bad.csv: line 1", "conversation, speeker, words"),
    ),
    "quote left open": (
        spoil("I keep thinking", f'"{SECRET}'),
        ("bad.csv: line 2, column", "a quotation mark must be closed"),
    ),
    "latin-1": (
        lambda content: content.replace(b"thinking", b"th\xefnking", 1),
        ("bad.csv: line 2, byte", "must be UTF-8", "byte 0xef"),
    ),
    "utf-16": (
        lambda content: content.decode().encode("utf-16"),
        ("bad.csv: byte 0: the file must be UTF-8, but this is UTF-16",),
    ),
    "one speaker": (
        lambda content: content.replace(b",T,", b",P,"),
        (
            "both sides must speak somewhere in a corpus",
            "only the patient",
        ),
    ),
    "NUL bytes": (
        lambda content: content.replace(b"thinking", b"thin\0ing", 1),
        ("bad.csv: line 2, byte", "NUL", "got 1"),
    ),
    "malformed ID": (
        spoil("0_1,T", "0-1,T"),
        ("bad.csv: line 3, column ID: an ID must be <session>_<turn>, as 163_0, got '0-1'",),
    ),
    "unknown speaker": (
        spoil("0_1,T", "0_1,Therapits"),
        ("bad.csv: line 3, column Type", "got 'Therapits'"),
    ),
    "turn twice": (
        spoil("0_1,T", "0_0,T"),
        ("bad.csv: line 3: a turn must stand once", "line 2", "got 'session 0, turn 0'"),
    ),
    "too few sessions": (
        lambda content: b"".join(content.splitlines(keepends=True)[:25]),
        ("a corpus must have at least 3 sessions", "has 2"),
    ),
    "workbook": (
        lambda _: workbook(),
        ("bad.csv: byte 0: the file must be text, but this is an Excel workbook",),
    ),
    "too many cells": (
        spoil("What is it about", f"{SECRET}, {SECRET},"),
        ("bad.csv: line 3: a row must have 4 fields", "got 6"),
    ),
}


@pytest.mark.parametrize("command", ["sweep", "corpus"])
@pytest.mark.parametrize("name", CORPORA)
def test_a_spoilt_corpus_is_refused(line: CommandLine, name: str, command: str) -> None:
    change, says = CORPORA[name]
    line.write("bad.csv", change((line.folder / "corpus.csv").read_bytes()))
    done = (
        line.run("corpus", "bad.csv") if command == "corpus" else sweep(line, "--corpus", "bad.csv")
    )
    check_refused(done, *says)
    assert "Ottilie" not in done.err, "what people say is sensitive and is never shown"


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("corpuss.csv", ("corpuss.csv: ", "does not exist; did you mean corpus.csv?")),
        ("sampel", ("sampel: ", "does not exist; did you mean sample?")),
        ("none/at/all", ("none/at/all: ", "does not exist")),
        (
            "empty",
            ("empty: ", "a corpus folder must hold CSV, TSV or JSONL files, but it is empty"),
        ),
    ],
)
def test_a_corpus_that_is_not_there_is_refused(
    line: CommandLine, corpus: str, says: tuple[str, ...]
) -> None:
    (line.folder / "empty").mkdir()
    check_refused(line.run("corpus", corpus), *says)
    check_refused(sweep(line, "--corpus", corpus), *says)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            "{session: session, speaker: who, txt: words}",
            ("columns.text: is missing", "columns.txt: unknown key", "did you mean text?"),
        ),
        (
            "{session: session, speaker: who, text: word}",
            ("mapped.csv: line 1: column word must be in the header", "did you mean words?"),
        ),
        (
            "{session: session, speaker: who, text: who}",
            ("columns: text: each part must have a column of its own", "got 'who'"),
        ),
        (
            "{session: session, speaker: who, text: words, patient: [them]}",
            ("mapped.csv: line 2, column who", "got 'me'"),
        ),
        ("session", ("--set: columns: must be a mapping, got 'session'",)),
    ],
)
def test_a_wrong_column_mapping_is_refused(
    line: CommandLine, columns: str, says: tuple[str, ...]
) -> None:
    line.write("mapped.csv", "session,who,words\n" + "".join(f"{n},me,a\n" for n in range(5)))
    check_refused(sweep(line, "--corpus", "mapped.csv", "--set", f"columns={columns}"), *says)


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
