"""A search space says exactly what it may say; everything else is told at once, with its line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from search_spaces.errors import SearchSpaceError
from search_spaces.space import bundled_names, parse_space, read_space
from search_spaces.yaml_file import parse_yaml
from tests.unit.search_spaces.spaces import one_stage, problems, space, stage_problems

SFT = "methods: [{kind: sft}]"


def test_a_full_search_space_is_read() -> None:
    read = space(
        """\
        name: full
        description: Everything at once.
        defaults: {model: medium, learning_rate: 5e-5}
        scales: {paper: {precision: bf16}, laptop: {max_length: 128}}
        seeds: [3, 4]
        stages:
          - name: first
            table: parameters
            grid: {batch_size: [1, 2], beams: [[1], [1, 4]]}
            zip: {epochs: [1, 1], warmup_steps: [0, 10]}
            exclude: [{kind: sft, batch_size: 2}]
            methods: [{kind: sft}, {kind: delta, peft_type: ia3, epochs: 3}]
          - name: second
            seeds: [0]
            from: {stage: first, best: valid/loss, mode: min}
            methods: [{kind: base}]
        """
    )
    first, second = read.stages
    assert read.defaults == {"model": "medium", "learning_rate": 5e-5}
    assert first.grid == {"batch_size": (1, 2), "beams": ((1,), (1, 4))}
    assert first.zipped == {"epochs": (1, 1), "warmup_steps": (0, 10)}
    assert first.exclude == ({"kind": "sft", "batch_size": 2},)
    assert first.seeds == (3, 4)
    assert second.seeds == (0,)
    assert first.methods[1].written == {"peft_type"}
    assert first.methods[1].overrides == {"epochs": 3}
    assert second.winner_of is not None
    assert (second.winner_of.stage, second.winner_of.mode) == ("first", "min")


def test_one_value_is_an_axis_of_one_and_a_list_of_beams_is_one_value() -> None:
    stage = one_stage(f"grid: {{batch_size: 2, beams: [1, 4]}}\n{SFT}").stages[0]
    assert stage.grid == {"batch_size": (2,), "beams": ((1, 4),)}


def test_every_problem_is_told_at_once_with_its_line_and_the_nearest_name() -> None:
    told = problems(
        """\
        nam: tiny
        defaults:
          modell: medium
          learning_rate: fast
        scales: {papr: {}, laptop: {max_lenth: 3}}
        seeds: [0, -1]
        stages:
          - name: a b
            tabel: methods
            grid:
              lr: [1]
              batch_size: [1, two]
            methods:
              - {kind: stf}
              - {kind: delta, rnk: 4, learning_rat: 1}
              - sft
        """
    )
    prefix = "grid.yaml: "
    assert told == [
        prefix
        + "nam (line 1): unknown key (known: defaults, description, early_stop, name, scales, seeds, "
        "stages), got 'nam'; did you mean name?",
        prefix + "line 1: `name` is missing",
        prefix + "seeds[1] (line 6): must be greater than or equal to 0, got -1",
        prefix + "defaults.modell (line 3): unknown field, got 'modell'; did you mean model?",
        prefix + "defaults.learning_rate (line 4): must be a valid number, unable to parse string "
        "as a number, got 'fast'",
        prefix + "scales.papr (line 5): unknown scale (known: laptop, paper), got 'papr'; "
        "did you mean paper?",
        prefix + "scales.laptop.max_lenth (line 5): unknown field, got 'max_lenth'; "
        "did you mean max_length?",
        prefix
        + "stages[0].tabel (line 9): unknown key (known: early_stop, exclude, from, grid, methods, "
        "name, seeds, table, zip), got 'tabel'; did you mean table?",
        prefix + "stages[0].name (line 8): must be letters, digits, `_`, `.` and `-`, at most 100 "
        "(it names a folder), and no name that the system or the results folder uses, got 'a b'",
        prefix + "stages[0].grid.lr (line 11): unknown field, got 'lr'; "
        "did you mean learning_rate?",
        prefix + "stages[0].grid.batch_size[1] (line 12): must be a valid integer, unable to parse "
        "string as an integer, got 'two'",
        prefix
        + "stages[0].methods[0].kind (line 14): must be base, sft, delta, dialogue_act, chatmgl, reader, got 'stf'; "
        "did you mean sft?",
        prefix + "stages[0].methods[1].rnk (line 15): unknown setting of delta, got 'rnk'; "
        "did you mean rank?",
        prefix + "stages[0].methods[1].learning_rat (line 15): unknown setting of delta, "
        "got 'learning_rat'; did you mean learning_rate?",
        prefix + "stages[0].methods[2] (line 16): must be a mapping with `kind`, got 'sft'; "
        "did you mean {kind: sft}?",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\n", "line 1: `stages` is missing"),
        ("name: a\nstages: []\n", "stages (line 2): must be a list of at least one stage, got []"),
        ("name: a\nstages: {name: b}\n", "must be a list of at least one stage"),
        (
            "name: a\nstages: [b]\n",
            "stages[0] (line 2): must be a mapping with `name` and `methods`",
        ),
        ("name: a\nstages: [{name: b}]\n", "stages[0] (line 2): `methods` is missing"),
        ("name: a\nstages: [{name: b, methods: []}]\n", "must be a list of at least one method"),
        ("name: ../a\nstages: [{name: b, methods: [{kind: sft}]}]\n", "it names a folder"),
        ("name: 3\nstages: [{name: b, methods: [{kind: sft}]}]\n", "it names a folder"),
        (f"name: {'a' * 101}\nstages: [{{name: b, methods: [{{kind: sft}}]}}]\n", "at most 100"),
        ("name: yes\nstages: [{name: b, methods: [{kind: sft}]}]\n", "got True"),
        (
            "name: a\ndescription: [b]\nstages: [{name: b, methods: [{kind: sft}]}]\n",
            "description (line 2): must be text, got ['b']",
        ),
        (
            "name: a\ndefaults: [b]\nstages: [{name: b, methods: [{kind: sft}]}]\n",
            "must be a mapping",
        ),
        ("name: a\nscales: 3\nstages: [{name: b, methods: [{kind: sft}]}]\n", "must be a mapping"),
        (
            "name: a\ndefaults: {seed: 3}\nstages: [{name: b, methods: [{kind: sft}]}]\n",
            "defaults.seed (line 2): seeds are replicates, of the search space or of a stage, "
            "got 'seed'; did you mean seeds?",
        ),
        ("name: a\n1: 2\nstages: [{name: b, methods: [{kind: sft}]}]\n", "unknown key"),
        ("name: a\non: 2\nstages: [{name: b, methods: [{kind: sft}]}]\n", "unknown key"),
    ],
)
def test_a_wrong_file_is_refused(text: str, says: str) -> None:
    (problem,) = problems(text)
    assert says in problem


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        (f"grid: {{batch_size: []}}\n{SFT}", "an axis must have at least one value, got []"),
        (f"grid: {{batch_size: [1, 1.0]}}\n{SFT}", "a value may stand once in an axis, got 1.0"),
        (f"grid: {{seed: [0, 1]}}\n{SFT}", "did you mean seeds?"),
        (f"grid: {{batch_sise: [1]}}\n{SFT}", "did you mean batch_size?"),
        (f"grid: {{batch_size: [yes]}}\n{SFT}", "not a truth value, got true"),
        (f"grid: [1]\n{SFT}", "must be a mapping of fields to values, got [1]"),
        (
            f"zip: {{batch_size: [1, 2], epochs: [1]}}\n{SFT}",
            "zipped axes must have equally many values, got {'batch_size': 2, 'epochs': 1}",
        ),
        (
            f"grid: {{epochs: [1]}}\nzip: {{epochs: [1]}}\n{SFT}",
            "may stand in `grid` or in `zip`, not in both",
        ),
        (f"exclude: {{loader: v1}}\n{SFT}", "must be a list of mappings"),
        (f"exclude: [{{}}]\n{SFT}", "must name at least one field"),
        (f"exclude: [{{kind: stf}}]\n{SFT}", "did you mean sft?"),
        (f"exclude: [{{kind: [sft]}}]\n{SFT}", "must be base, sft, delta"),
        (f"exclude: [{{lodaer: v1}}]\n{SFT}", "did you mean loader?"),
        (f"exclude: [{{loader: v9}}]\n{SFT}", "must be v1, v2, shift"),
        (
            f"table: method\n{SFT}",
            "must be parameters or methods, got 'method'; did you mean methods?",
        ),
        (f"seeds: []\n{SFT}", "an axis must have at least one value"),
        (f"seeds: [1, 1]\n{SFT}", "a value may stand once"),
        ("methods: [{rank: 3}]", "`kind` is missing"),
        (
            "methods: [{kind: [sft]}]",
            "must be base, sft, delta, dialogue_act, chatmgl, reader, got ['sft']",
        ),
        ("methods: [{kind: {sft: 1}}]", "must be base, sft, delta"),
        ("methods: [{kind: sft, seed: 1}]", "did you mean seeds?"),
        ("methods: [{kind: sft, rank: 1}]", "unknown setting of sft, got 'rank'"),
        ("methods: [{kind: delta, rank: on}]", "methods[0].rank (line 5): a number or text"),
        ("methods: [{kind: delta, rank: -1}]", "must be greater than 0, got -1"),
        ("methods: [{kind: delta, alpha: .nan}]", "must be a finite number"),
        ("methods: [{kind: delta, peft_type: lra}]", "did you mean lora?"),
        ("methods: [{kind: delta, 3: 4}]", "unknown setting of delta, got 3"),
    ],
)
def test_a_wrong_stage_is_refused(stage: str, says: str) -> None:
    told = stage_problems(stage)
    assert len(told) == 1, told
    assert "stages[0]" in told[0]
    assert "(line " in told[0]
    assert says in told[0]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (
            "{stage: first, best: test/rouge1_beam1}",
            "a winner must be chosen on validation, never on test scores, "
            "got 'test/rouge1_beam1'; did you mean valid/rouge1_beam1?",
        ),
        ("{stage: first, best: rouge1}", "must be a validation metric such as valid/rouge1_beam1"),
        ("{stage: first, best: valid/rouge1_beam0}", "must be a validation metric"),
        ("{stage: first, best: valid/loss_beam1}", "must be a validation metric"),
        ("{stage: first, best: [valid/loss]}", "must be a validation metric"),
        ("{stage: first}", "from (line 6): `best` is missing"),
        ("{best: valid/loss}", "from (line 6): `stage` is missing"),
        (
            "{stage: frist, best: valid/loss}",
            "must name an earlier stage (first), got 'frist'; did you mean first?",
        ),
        ("{stage: second, best: valid/loss}", "must name an earlier stage (first)"),
        (
            "{stage: first, best: valid/loss, mode: maxi}",
            "must be max or min, got 'maxi'; did you mean max?",
        ),
        ("{stage: first, best: valid/loss, mode: [max]}", "must be max or min"),
        ("{stage: first, best: valid/loss, moode: max}", "did you mean mode?"),
        ("first", "must be a mapping"),
    ],
)
def test_a_wrong_winner_is_refused(rule: str, says: str) -> None:
    told = problems(
        f"name: a\nstages:\n  - name: first\n    {SFT}\n"
        f"  - name: second\n    from: {rule}\n    {SFT}\n"
    )
    assert says in told[0]
    assert told[0].startswith("grid.yaml: stages[1].from")


def test_the_first_stage_can_have_no_winner_and_names_are_not_shared() -> None:
    told = problems(
        f"name: a\nstages:\n  - name: one\n    from: {{stage: none, best: valid/loss}}\n    {SFT}\n"
        f"  - name: one\n    {SFT}\n"
    )
    assert "must name an earlier stage (there is none)" in told[0]
    assert "stages[1].name (line 6): two stages may not share a name" in told[1]


def test_zipped_axes_may_repeat_a_value() -> None:
    stage = one_stage(f"zip: {{batch_size: [1, 1, 2], epochs: [1, 2, 2]}}\n{SFT}").stages[0]
    assert stage.zipped["batch_size"] == (1, 1, 2)


def test_bundled_names_and_files_are_found(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(f"name: mine\ndefaults: {{model: m}}\nstages: [{{name: a, {SFT}}}]\n")
    assert read_space(str(file)).name == "mine"
    assert {read_space(name).name for name in bundled_names()} == set(bundled_names())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("paper_gird", "did you mean paper_grid?"),
        ("paper_grid.yaml", "did you mean paper_grid?"),
        ("", "must be a file or one of acts_grid, delta_grid, paper_grid, smoke"),
        ("a" * 5000, "must be a file or one of"),
        ("a\0b", "must be a file or one of"),
        ("../search_spaces/nothing", "must be a file or one of"),
        (
            ".",
            "must be a file or one of acts_grid, delta_grid, paper_grid, smoke, not a folder, got '.'",
        ),
    ],
)
def test_an_unknown_name_is_refused(asked: str, says: str) -> None:
    with pytest.raises(SearchSpaceError) as caught:
        read_space(asked)
    assert says in str(caught.value)


def test_a_missing_file_is_compared_with_its_neighbours(tmp_path: Path) -> None:
    right = tmp_path / "my_[grid].yaml"
    right.write_text("name: a\n")
    with pytest.raises(SearchSpaceError, match="did you mean") as caught:
        read_space(str(tmp_path / "my_[gird].yaml"))
    assert caught.value.problems[0].nearest == str(right)


def test_the_error_survives_the_way_back_from_a_worker() -> None:
    with pytest.raises(SearchSpaceError) as caught:
        parse_space(parse_yaml("f.yaml", "name: a b\n"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is SearchSpaceError
    assert again.problems == caught.value.problems
