"""`--set key=value`: over defaults, scales and axes; under what a method says of itself."""

from __future__ import annotations

import pytest

from search_spaces.errors import SearchSpaceError
from search_spaces.expand import field_value
from search_spaces.overrides import mapping_of
from search_spaces.space import SearchSpace
from search_spaces.spec import ColumnMapping
from tests.unit.search_spaces.spaces import space, trials

GRID = """\
    name: grid
    defaults: {model: medium, epochs: 2}
    scales: {paper: {max_length: 512}}
    stages:
      - name: first
        grid: {batch_size: [1, 4], learning_rate: [1.0e-4, 1.0e-5]}
        zip: {loader: [v1, v2], warmup_steps: [0, 5]}
        methods: [{kind: sft}, {kind: delta, rank: 8, weight_decay: 0.1}]
      - name: second
        from: {stage: first, best: valid/loss, mode: min}
        methods: [{kind: base}]
    """


def with_settings(*settings: str) -> SearchSpace:
    return space(GRID, *settings)


def seen(name: str, *settings: str) -> list[object]:
    """The values that a field has in the first stage's trials, each once."""
    return list(dict.fromkeys(field_value(s, name) for s in trials(with_settings(*settings))))


def refused(*settings: str) -> list[str]:
    with pytest.raises(SearchSpaceError) as caught:
        with_settings(*settings)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("setting", "name", "values"),
    [
        ("epochs=5", "epochs", [5]),  # over defaults
        ("max_length=64", "max_length", [64]),  # over the scale
        ("batch_size=2", "batch_size", [2]),  # over an axis
        ("warmup_steps=7", "warmup_steps", [7]),  # over a zipped axis
        ("learning_rate=5e-5", "learning_rate", [5e-5]),  # text in YAML 1.1
        ("epochs=[1, 2, 3]", "epochs", [1, 2, 3]),  # a list makes an axis
        ("batch_size=[8, 16]", "batch_size", [8, 16]),  # or another one
        ("batch_size=[8, 8]", "batch_size", [8]),
        ("beams=[1, 8]", "beams", [(1, 8)]),  # a list is one value of this field
        ("beams=[[1], [1, 8]]", "beams", [(1,), (1, 8)]),
        ("max_steps=3", "max_steps", [3]),
        ("max_steps=", "max_steps", [None]),
        (" epochs = 5 ", "epochs", [5]),
        ("seed=3", "seed", [3]),
        ("seeds=[3, 4]", "seed", [3, 4]),
        ("seeds=7", "seed", [7]),
        ("rank=2", "rank", [None, 8]),  # the method's own word stays
        ("weight_decay=0.5", "weight_decay", [0.5, 0.1]),
        ("peft_type=ia3", "peft_type", [None, "ia3"]),  # what the entry does not say is set
        ("model=my/models", "model", ["my/models"]),
        ("corpus=a=b.csv", "corpus", ["a=b.csv"]),  # the first = divides
    ],
)
def test_a_setting_replaces(setting: str, name: str, values: list[object]) -> None:
    assert seen(name, setting) == values


def test_the_partner_of_a_zipped_axis_that_is_set_stays() -> None:
    assert seen("loader", "warmup_steps=7") == ["v1", "v2"]
    assert len(trials(with_settings("warmup_steps=7"))) == len(trials(with_settings()))


def test_the_last_of_two_settings_counts() -> None:
    assert seen("batch_size", "batch_size=[1, 2]", "batch_size=3") == [3]
    assert seen("batch_size", "batch_size=3", "batch_size=[1, 2]") == [1, 2]


def test_a_setting_holds_for_a_stage_with_a_winner_through_its_winner() -> None:
    one = with_settings("max_length=100", "valid_beams=[1, 2]")
    best = trials(one)[0]
    (base,) = trials(one, 1, winner=best)
    assert (base.training.max_length, base.decoding.valid_beams) == (100, (1, 2))


def test_an_axis_is_for_stages_without_a_winner() -> None:
    assert "epochs" not in with_settings("epochs=[1, 2]").stages[1].grid


def test_columns_can_be_set_as_a_mapping() -> None:
    columns = ColumnMapping(session="s", speaker="w", text="t")
    assert seen("columns", "columns={session: s, speaker: w, text: t}") == [columns]


def test_the_name_can_be_set() -> None:
    assert with_settings("name=other.grid_2").name == "other.grid_2"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("batch_size", "--set: must be written key=value, got 'batch_size'"),
        ("=3", "--set: must be written key=value, got '=3'"),
        ("", "--set: must be written key=value, got ''"),
        (
            "batchsize=3",
            "--set: batchsize: unknown field, got 'batchsize'; did you mean batch_size?",
        ),
        ("sed=3", "did you mean seed?"),
        ("kind=sft", "unknown field, got 'kind'"),
        ("stages=[]", "unknown field, got 'stages'"),
        ("name=../up", "--set: name: must be letters, digits"),
        ("name=3", "--set: name: must be letters, digits"),
        ("epochs=0", "--set: epochs: must be greater than 0, got 0"),
        ("epochs=[]", "--set: epochs: needs at least one value, got []"),
        ("seeds=[]", "--set: seeds: needs at least one value, got []"),
        ("seeds=[0, -1]", "--set: seeds: must be greater than or equal to 0, got -1"),
        ("epochs=[1", "--set: epochs: the value is not plain YAML, got '[1'"),
        ("epochs=!!python/name:os.system ''", "the value is not plain YAML"),
        ("epochs=!!int ''", "the value is not plain YAML"),
        ("epochs=2024-13-45", "the value is not plain YAML"),
        ("epochs=" + "[" * 10_000, "the value is not plain YAML"),
        ("epochs=yes", "not a truth value, got true"),
        ("learning_rate=-1e-4", "must be greater than 0, got '-1e-4'"),
        ("learning_rate=.inf", "must be a finite number"),
        ("length_penalty=.nan", "must be a finite number"),
        ("beams=[0]", "--set: beams[0]: must be greater than 0, got 0"),
        ("loader=v4", "must be v1, v2, shift, got 'v4'"),
        ("model=", "must be a valid string, got None"),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, says: str) -> None:
    (problem,) = refused(setting)
    assert says in problem


def test_every_wrong_setting_is_told() -> None:
    assert len(refused("epochs=0", "x", "lr=1", "batch_size=2")) == 3


def test_a_column_mapping_on_the_command_line() -> None:
    mapping = mapping_of(["session=conv", "speaker=who", "text=said", "patient=user,client"])
    assert mapping == ColumnMapping(
        session="conv", speaker="who", text="said", patient=("user", "client")
    )


def test_every_wrong_column_setting_is_told() -> None:
    with pytest.raises(SearchSpaceError) as caught:
        mapping_of(["sesion=conv", "speaker"])
    text = str(caught.value)
    assert "did you mean session?" in text
    assert "'speaker'" in text
    with pytest.raises(SearchSpaceError, match="`text=COLUMN` is missing"):
        mapping_of(["session=a", "speaker=b"])
