"""The table of fields, and what each of them takes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_type_hints

import pytest

from search_spaces.fields import (
    METHODS,
    PARTS,
    check_value,
    is_list_field,
    method_fields,
    trial_fields,
    unknown_name,
)


def refused(name: str, value: object) -> str:
    checked, found = check_value(name, value, "f.yaml", "here (line 3)")
    assert checked is None
    assert len(found) == 1, found
    return str(found[0])


def test_every_field_of_every_part_is_in_the_table_once() -> None:
    names = ["model", "loader", "seed"]
    for cls in PARTS.values():
        names += [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    methods: dict[str, Any] = {}
    for cls in METHODS.values():
        hints = get_type_hints(cls, include_extras=True)
        for f in dataclasses.fields(cls):
            if f.name != "kind":
                meant = hints[f.name]
                assert methods.setdefault(f.name, meant) == meant, "methods share what is the same"
    names += methods
    assert len(names) == len(set(names)), "a bare name must mean one field"
    assert set(names) == set(trial_fields())


def test_every_default_is_a_value_that_its_field_takes() -> None:
    for cls in (*PARTS.values(), *METHODS.values()):
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name != "kind":
                assert check_value(field.name, field.default, "f", "p") == (field.default, [])


def test_methods_own_their_settings() -> None:
    assert method_fields("sft") == method_fields("base") == frozenset()
    assert {"rank", "peft_type", "num_virtual_tokens"} <= method_fields("delta")
    assert "kind" not in method_fields("delta")


def test_list_fields_are_those_of_which_one_value_is_a_list() -> None:
    assert {name for name in trial_fields() if is_list_field(name)} == {
        "beams",
        "valid_beams",
        "target_modules",
    }


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("learning_rate", "5e-5", 5e-5),  # YAML 1.1 reads it as text
        ("learning_rate", 1, 1.0),
        ("batch_size", "4", 4),
        ("batch_size", 4.0, 4),
        ("max_steps", None, None),
        ("beams", [1, "4"], (1, 4)),
        ("gradient_checkpointing", True, True),
        ("gradient_checkpointing", "no", False),
        ("bertscore_model", None, None),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("target_modules", ["c_attn"], ("c_attn",)),
        ("privacy", "drop", "drop"),
        ("privacy", False, "off"),  # YAML 1.1 reads `off` as a truth value
    ],
)
def test_a_value_gets_its_type(name: str, value: object, right: Any) -> None:
    checked, found = check_value(name, value, "f", "p")
    assert found == []
    assert checked == right
    assert type(checked) is type(right)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("learning_rate", -1e-4, "must be greater than 0, got -0.0001"),
        ("learning_rate", 0, "must be greater than 0, got 0"),
        ("learning_rate", math.inf, "must be a finite number, got inf"),
        ("learning_rate", "nan", "got 'nan'"),
        ("length_penalty", math.nan, "must be a finite number, got nan"),
        ("length_penalty", -math.inf, "must be a finite number"),
        ("learning_rate", "fast", "must be a valid number"),
        ("learning_rate", None, "must be a valid number"),
        ("learning_rate", [1e-4], "must be a valid number"),
        (
            "batch_size",
            2.5,
            "must be a valid integer, got a number with a fractional part, got 2.5",
        ),
        ("batch_size", True, "not a truth value, got true"),
        ("beams", [True, 2], "not a truth value, got true"),
        ("beams", [0], "here[0] (line 3): must be greater than 0, got 0"),
        ("beams", [], "here (line 3): must have at least 1 item, got []"),
        ("beams", 1, "must be a list"),
        ("model", True, "not a truth value"),
        ("model", 3, "must be a valid string"),
        ("model", "", "at least 1 character"),
        ("privacy", True, "not a truth value, got true"),
        ("privacy", "mask", "must be redact, drop, off, got 'mask'"),
        ("loader", False, "not a truth value, got false"),
        ("loader", "v3", "must be v1, v2, shift, got 'v3'; did you mean v2?"),
        ("loader", "V2", "did you mean v2?"),
        ("peft_type", "prefixes", "did you mean prefix?"),
        ("precision", 16, "must be fp32, bf16, fp16, got 16; did you mean fp16?"),
        ("max_length", 15, "must be greater than or equal to 16"),
        ("train_fraction", 1.1, "must be less than or equal to 1"),
        ("dropout", 1, "must be less than 1"),
        ("seed", -1, "must be greater than or equal to 0"),
        ("seed", 2**32, "must be less than 4294967296"),
        ("target_modules", [], "at least 1 item"),
        ("target_modules", "c_attn", "must be a list"),
        ("prompt_template", "Therapist:", r"must match pattern '\{prompt\}'"),
        ("gradient_checkpointing", "maybe", "must be a valid boolean"),
        ("gradient_checkpointing", 7, "must be a valid boolean"),
    ],
)
def test_a_wrong_value_is_told_with_rule_and_value(name: str, value: object, says: str) -> None:
    assert says in refused(name, value)


def test_columns_are_told_apart_from_what_they_hold() -> None:
    given = {"session": "s", "speeker": "w", "text": "t"}
    _, found = check_value("columns", given, "f.yaml", "defaults.columns (line 2)")
    told = [str(problem) for problem in found]
    assert told[0] == (
        "f.yaml: defaults.columns.speaker (line 2): is missing, got {'session': 's', "
        "'speeker': 'w', 'text': 't'}"
    )
    assert told[1].startswith("f.yaml: defaults.columns.speeker (line 2): unknown key (known: ")
    assert told[1].endswith("got 'speeker'; did you mean speaker?")


def test_long_values_are_cut() -> None:
    assert len(refused("learning_rate", "9" * 100_000 + "x")) < 300


def test_an_unknown_name_comes_with_the_known_ones() -> None:
    problem = unknown_name("papr", ("paper", "laptop"), "scale", "f.yaml", "scales")
    assert str(problem) == (
        "f.yaml: scales: unknown scale (known: laptop, paper), got 'papr'; did you mean paper?"
    )
