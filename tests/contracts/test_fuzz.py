"""Whatever a file holds, reading it ends soon, in a value or in an error that the user can mend."""

from __future__ import annotations

import codecs
import copy
import csv
import dataclasses
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.dialogue import Corpus
from corpora.loaders import build_pairs
from corpora.read import read_corpus
from corpora.summary import summarise
from search_spaces.errors import InputError
from search_spaces.expand import expand_stage
from search_spaces.identity import spec_from_dict, spec_to_dict, trial_id, trial_name
from search_spaces.overrides import apply_settings, mapping_of
from search_spaces.space import bundled_names, is_name, read_space
from search_spaces.spec import ColumnMapping, CorpusSpec, Loader, Scale, SplitSpec
from tests.unit.corpora.small_corpora import annomi, hope

MOST_CPU_S = 10.0
"""For one file of a few kilobytes; what grows without bound takes minutes."""
MOST_TRIALS = 50

fuzz = settings(deadline=None, derandomize=True, max_examples=150)
fewer = settings(fuzz, max_examples=60)
DRAWS = st.integers(0, 2**32 - 1).map(random.Random)


def outcome(read: Callable[[], object]) -> InputError | None:
    """What a user would be told; None where the input was taken."""
    found = None
    began = time.process_time()
    try:
        read()
    except InputError as error:
        found = error
    assert time.process_time() - began < MOST_CPU_S
    if found is not None:
        assert found.problems
        # It is printed: half a character in it would be a traceback.
        assert 0 < len(str(found).encode()) < 100_000
    return found


# --- Search spaces ---------------------------------------------------------------------------


def use_space(file: Path, settings_: tuple[str, ...] = ()) -> None:
    """As `plan` and `sweep` do, up to the ids of the trials."""
    space = read_space(str(file), settings_)
    assert is_name(space.name)
    for scale in get_args(Scale):
        for stage in space.stages:
            winner = None
            if stage.winner_of is not None:
                winner = expand_stage(space, space.stages[0], scale, None, None)[0]
            for spec in expand_stage(space, stage, scale, None, winner)[:MOST_TRIALS]:
                trial_id(spec, corpus_hash="", model_fingerprint="", metric_versions={})
                trial_name(spec).encode()
                assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "space.yaml"


FULL = """\
name: full
description: Every key there is.
defaults: {model: medium, epochs: 1, columns: {session: s, speaker: w, text: t}}
scales: {laptop: {batch_size: 2}, paper: {precision: bf16}}
seeds: [0, 1]
stages:
  - name: a
    table: parameters
    grid: {learning_rate: [1e-4, 5e-5], beams: [[1], [1, 2]]}
    zip: {batch_size: [1, 2], max_length: [64, 128]}
    exclude: [{batch_size: 1, learning_rate: 5e-5}]
    methods: [{kind: sft}, {kind: delta, peft_type: lora, rank: 4}]
  - name: b
    from: {stage: a, best: valid/rouge1_beam1, mode: max}
    methods: [&base {kind: base}, {kind: sft, loader: v2}]
    seeds: 3
"""

HOSTILE_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, 0.0, -0.0, 1e308, float("nan"),
    float("inf"), "", " ", "null", "~", "1e-4", "0x10", "1_0", "12:30:45", "2024-13-45", "..",
    "../../x", "a/b", "\u202e", "\U0001f600", "x" * 5000, "{prompt}", "{0}", "%s", "=1+1", [], [[]], [[1], 2], [None], {}, {"kind": "sft"},
    {"kind": None}, {1: 2}, {None: None}, {"a": {"b": {"c": []}}}, [1, 1], ["sft"], "sft", "medium",
    "delta", "a",
]  # fmt: skip

HOSTILE_LINES = [
    "? [a, b]\n: c\n", "<<: *base\n", "<<: [1]\n", "<<: 3\n", "!!python/object/apply:os.system [x]\n",
    "!!binary aGk=\n", "!!set {a, b}\n", "!!timestamp x\n", "&a [*a]\n", "*unknown\n", "---\n", "...\n",
    "%YAML 9.9\n---\n", "%TAG ! x\n", "\t- a\n", "- a\n", "'", '"', '"\\ud800"\n', '"\\x00"\n',
    '"\\U0010ffff"\n', "|\n  a\n", ">9\n", "{" * 500, "[" * 500, "a: " * 300, "- " * 500, ": " * 50,
    "1e999999999\n", "0b" + "1" * 300 + "\n", "190:20:30:40:50\n", "=\n", "name: b\n", "\x07", "\x85",
    "\u2028", "\ufeff", "\ufffe",
]  # fmt: skip


def mutated_text(text: str, draw: random.Random, pieces: list[str]) -> str:
    """Text after a few cuts, repetitions, exchanges and insertions."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(text) + 1)
        stop = min(len(text), start + draw.choice((0, 1, 1, 3, 20, 200)))
        text = draw.choice(
            (
                text[:start] + text[stop:],
                text[:start] + text[start:stop] * 2 + text[stop:],
                text[:start] + draw.choice(pieces) + text[stop:],
                text[:start] + draw.choice(pieces) + text[stop:],
                text[:start]
                + chr(draw.choice((9, 10, 13, 34, 39, 92, 123, 58, 45, 233)))
                + text[stop:],
            )
        )
    return text


def nodes(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict | list):
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            yield from nodes(child, (*at, key))


def mutated_data(data: Any, draw: random.Random) -> Any:
    """YAML data with a few of its values, keys or items exchanged, doubled or taken out."""
    data = copy.deepcopy(data)
    for _ in range(draw.randint(1, 3)):
        path = draw.choice([at for at in nodes(data) if at] or [()])
        if not path:
            return draw.choice(HOSTILE_VALUES)
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        key, hostile = path[-1], copy.deepcopy(draw.choice(HOSTILE_VALUES))
        match draw.randrange(4):
            case 0 if isinstance(parent, dict):
                parent[str(draw.choice(HOSTILE_VALUES))] = parent.pop(key)
            case 1:
                del parent[key]
            case 2 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case _:
                parent[key] = hostile
    return data


def test_the_files_that_are_mutated_are_right(yaml_file: Path) -> None:
    yaml_file.write_text(FULL, encoding="utf-8")
    assert outcome(lambda: use_space(yaml_file)) is None


@fuzz
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda t: t.encode("utf-8")))
def test_any_bytes_are_a_search_space_or_an_error(yaml_file: Path, content: bytes) -> None:
    yaml_file.write_bytes(content)
    assert outcome(lambda: use_space(yaml_file)) is not None


@fuzz
@given(draw=DRAWS)
def test_a_search_space_with_other_characters(yaml_file: Path, draw: random.Random) -> None:
    text = mutated_text(FULL, draw, HOSTILE_LINES)
    yaml_file.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(lambda: use_space(yaml_file))


@fuzz
@given(draw=DRAWS)
def test_a_search_space_with_other_values(yaml_file: Path, draw: random.Random) -> None:
    data = mutated_data(yaml.safe_load(FULL), draw)
    yaml_file.write_text(
        yaml.safe_dump(data, sort_keys=False, allow_unicode=draw.random() < 0.5), encoding="utf-8"
    )
    outcome(lambda: use_space(yaml_file))


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=lambda value: repr(value)[:30])
def test_every_place_with_every_hostile_value(yaml_file: Path, value: Any) -> None:
    data = yaml.safe_load(FULL)
    for path in [at for at in nodes(data) if at]:
        changed = copy.deepcopy(data)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = value
        yaml_file.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        outcome(lambda: use_space(yaml_file))


@fewer
@given(
    key=st.sampled_from(["rank", "beams", "seeds", "name", "columns", "corpus", "model"])
    | st.text(),
    value=st.text(max_size=40) | st.sampled_from([str(value) for value in HOSTILE_VALUES]),
    draw=DRAWS,
)
def test_any_setting_of_the_command_line(key: str, value: str, draw: random.Random) -> None:
    name = draw.choice(bundled_names())
    outcome(lambda: apply_settings(read_space(name), (f"{key}={value}",)))
    outcome(lambda: apply_settings(read_space(name), (value,)))
    outcome(lambda: mapping_of([f"{key}={value}", value]))


@fewer
@given(name=st.text(max_size=30) | st.sampled_from(["~", "~x/y", "\0", "a" * 5000, "/", ".", "*["]))
def test_any_name_of_a_search_space(name: str) -> None:
    if name not in bundled_names():
        assert outcome(lambda: read_space(name)) is not None


# --- Corpora ---------------------------------------------------------------------------------

LINES = "".join(
    json.dumps({"s": session, "w": "PT"[turn % 2], "t": f"words {turn}", "n": turn, "a": "id"})
    + "\n"
    for session in (1, 2, 3)
    for turn in range(4)
)
MAPPED = ColumnMapping(session="s", speaker="w", text="t", turn="n", act="a")
CSV_LINES = "s;w;t;n;a\n" + "".join(
    f'{session};{"PT"[turn % 2]};"words; {turn}";{turn};\n'
    for session in (1, 2, 3)
    for turn in range(4)
)
CORPORA: dict[str, tuple[str, str, ColumnMapping | None]] = {
    "hope": ("all.csv", hope(), None),
    "annomi": ("all.csv", annomi(), None),
    "lines": ("all.jsonl", LINES, MAPPED),
    "tabs": ("all.tsv", hope().replace(",", "\t"), None),
    "semicolons": ("all.csv", CSV_LINES, MAPPED),
}
NAMES = ["all.csv", "all.tsv", "all.jsonl", "all.CSV", "all.txt", "all", "1.csv"]
PIECES = [
    '"', '""', '"""', ",", ";", "\t", "\r", "\r\n", "\n\n", "\0", "\ufeff", "\u2028", "\x1a", "\x1b[2J",
    "'", "\\", "{", "}", "[", "]", "null", "NaN", "1e999", "9" * 5000, "[" * 2000, '{"a":' * 2000,
    '"\\ud800"', "\\u0000", "-1", "1.0", "1_1", "163_0", "P", "T", "ID,Type,Utterance,Dialog_Act\n",
    "=cmd|' /C calc'!A0", "<script>", "x" * 5000, ",,,,,,,,", '{"s": 1}\n', "1,2\n", "é", "\U0001f600",
    "a@b.example", "\u200b", "\uff11\uff12", "\u00b2",
]  # fmt: skip
ENCODINGS = [
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "shift_jis",
    "utf-7", "gb18030", "cp037",
]  # fmt: skip
SIGNATURES = [
    b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, b"PK\x03\x04",
    b"\x1f\x8b", b"\xff", b"\xc3", b"\x00",
]  # fmt: skip


def use_corpus(path: Path, columns: ColumnMapping | None) -> None:
    """As `corpus` and every trial do."""
    corpus = read_corpus(CorpusSpec(corpus=str(path), columns=columns))
    check_corpus(corpus)
    for loader in get_args(Loader):
        outcome(lambda loader=loader: json.dumps(summarise(corpus, loader, SplitSpec())).encode())
        outcome(lambda loader=loader: build_pairs(corpus, loader, SplitSpec()))


def check_corpus(corpus: Corpus) -> None:
    assert len({dialogue.session for dialogue in corpus.dialogues}) == len(corpus.dialogues) >= 3
    for dialogue in corpus.dialogues:
        turns = [said.turn for said in dialogue.utterances]
        assert turns == sorted(set(turns))
        for said in dialogue.utterances:
            assert said.text == " ".join(said.text.split()) != ""
            said.text.encode()
            assert "\0" not in said.text
    for problem in corpus.problems:
        str(problem).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for file in folder.iterdir():
        file.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", CORPORA)
def test_the_corpora_that_are_mutated_are_right(folder: Path, kind: str) -> None:
    name, text, columns = CORPORA[kind]
    fill(folder, {name: text.encode()})
    for path in (folder, folder / name):
        assert outcome(lambda path=path: use_corpus(path, columns)) is None


@fuzz
@given(
    content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8")),
    start=st.sampled_from([*SIGNATURES, b"ID,Type,Utterance,Dialog_Act\n", b"s,w,t\n", b'{"s": ']),
    name=st.sampled_from(NAMES),
    columns=st.sampled_from([None, MAPPED]),
)
def test_any_bytes_are_a_corpus_or_an_error(
    folder: Path, content: bytes, start: bytes, name: str, columns: ColumnMapping | None
) -> None:
    fill(folder, {name: start + content})
    outcome(lambda: use_corpus(folder, columns))
    outcome(lambda: use_corpus(folder / name, columns))


@pytest.mark.parametrize("kind", CORPORA)
@fuzz
@given(draw=DRAWS)
def test_a_corpus_with_other_characters(folder: Path, kind: str, draw: random.Random) -> None:
    name, text, columns = CORPORA[kind]
    if draw.random() < 0.2:
        name = draw.choice(NAMES)
    if draw.random() < 0.2:
        columns = draw.choice([None, MAPPED])
    text = mutated_text(text, draw, PIECES)
    encoding = draw.choice(ENCODINGS) if draw.random() < 0.3 else "utf-8"
    content = bytearray(text.encode(encoding, "replace"))
    for _ in range(draw.choice((0, 0, 1, 5))):
        content[draw.randrange(len(content))] = draw.randrange(256)
    fill(folder, {name: draw.choice(SIGNATURES) * (draw.random() < 0.2) + content})
    outcome(lambda: use_corpus(folder / name, columns))


@fewer
@given(draw=DRAWS)
def test_a_folder_of_several_files(folder: Path, draw: random.Random) -> None:
    kinds = draw.sample(sorted(CORPORA), draw.randint(1, 3))
    files = {}
    for number, kind in enumerate(kinds):
        name, text, _ = CORPORA[kind]
        if draw.random() < 0.7:
            text = mutated_text(text, draw, PIECES)
        files[f"{draw.choice(('', '.', '2', 'é ', '%'))}{number}{name}"] = text.encode()
    fill(folder, files)
    outcome(lambda: use_corpus(folder, draw.choice([None, MAPPED])))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["P", "T", "1", "\ud800", "\x00", 10**400]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@fuzz
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["s", "w", "t", "n", "a", "\ud800", ""]), JSON_VALUES)
        | st.fixed_dictionaries(
            {"s": st.integers(1, 4), "w": st.just("P"), "t": JSON_VALUES, "n": st.integers(4, 9)},
            optional={"a": JSON_VALUES, "b": JSON_VALUES},
        ),
        max_size=3,
    ),
    columns=st.sampled_from([None, MAPPED, dataclasses.replace(MAPPED, act=None)]),
)
def test_lines_of_any_json(
    folder: Path, rows: list[dict[str, Any]], columns: ColumnMapping | None
) -> None:
    lines = LINES + "".join(json.dumps(row) + "\n" for row in rows)
    fill(folder, {"all.jsonl": lines.encode()})
    outcome(lambda: use_corpus(folder / "all.jsonl", columns))


@fewer
@given(
    names=st.fixed_dictionaries(
        {key: st.text(min_size=1, max_size=5) for key in ("session", "speaker", "text")},
        optional={
            "turn": st.text(max_size=5),
            "patient": st.lists(st.text(max_size=3), max_size=3).map(tuple),
            "therapist": st.lists(st.text(max_size=3), max_size=3).map(tuple),
        },
    ),
    header=st.lists(st.text(max_size=5), max_size=4),
)
def test_any_mapping_and_any_header(folder: Path, names: dict[str, Any], header: list[str]) -> None:
    mapping = ColumnMapping(**names)
    speakers = [*mapping.patient, *mapping.therapist, "P", "T"]
    head = [*header, mapping.session, mapping.speaker, mapping.text]
    rows = [
        [*header, str(session), speaker, "words"] for session in range(3) for speaker in speakers
    ]
    with io.StringIO(newline="") as text:
        csv.writer(text).writerows([head, *rows])
        fill(folder, {"all.csv": text.getvalue().encode("utf-8", "replace")})
    outcome(lambda: use_corpus(folder / "all.csv", mapping))


@fewer
@given(
    path=st.text(max_size=40) | st.sampled_from(["~", "~x", "\0", "a" * 5000, "a/" * 3000, ".."])
)
def test_any_path_of_a_corpus(path: str) -> None:
    if path:
        outcome(lambda: read_corpus(CorpusSpec(corpus=path[:4096])))
