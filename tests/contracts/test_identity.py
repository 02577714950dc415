"""A trial's id: the same for the same work however it is written, another for any other work."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter, ValidationError

from corpora.dialogue import Dialogue, Utterance
from corpora.sessions import content_hash
from search_spaces.expand import expand_stage
from search_spaces.fields import METHODS, PARTS, trial_fields
from search_spaces.identity import trial_id
from search_spaces.space import bundled_names, parse_space, read_space
from search_spaces.spec import (
    BaseSettings,
    ColumnMapping,
    CorpusSpec,
    DecodingSpec,
    DeltaSettings,
    Loader,
    MetricsSpec,
    Scale,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from search_spaces.yaml_file import parse_yaml

UNCOUNTED = {("model",), ("corpus", "corpus"), ("corpus", "privacy")}
"""Fields that an id does not depend on: two are names of what its contents stand for, and one
decides what is shown."""

ANY_VALUES = (True, False, 3, 17, 0.25, 0.5, "sgd", "ab{prompt}", ("a", "b"), (3, 5), ("c",), None)
Path = tuple[str, ...]


def identity(spec: TrialSpec) -> str:
    return trial_id(
        spec, corpus_hash="c", model_fingerprint="m", metric_versions={"rouge": "1", "meteor": "1"}
    )


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Every field of a specification that is no part itself: path, value, annotation."""
    hints = get_type_hints(type(value), include_extras=True)
    for field in dataclasses.fields(value):
        one = getattr(value, field.name)
        if dataclasses.is_dataclass(one):
            yield from leaves(one, (*path, field.name))
        elif field.name != "kind":
            yield (*path, field.name), one, hints[field.name]


def other_values(value: Any, annotation: Any) -> list[Any]:
    """Values that the field may have and does not have."""
    adapter = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    choices = [choice for part in (annotation, *get_args(annotation)) for choice in get_args(part)]
    found = []
    for candidate in (*choices, *ANY_VALUES):
        try:
            one = adapter.validate_python(candidate, strict=isinstance(candidate, bool))
        except ValidationError:
            continue
        if one != value and one not in found and not dataclasses.is_dataclass(one):
            found.append(one)
    return found


def with_value(spec: Any, path: Path, value: Any) -> Any:
    if len(path) > 1:
        value = with_value(getattr(spec, path[0]), path[1:], value)
    return dataclasses.replace(spec, **{path[0]: value})


COLUMNS = ColumnMapping(session="s", speaker="w", text="t")
STARTS: dict[str, TrialSpec] = {
    kind: TrialSpec(model="m", method=method(), corpus=CorpusSpec(columns=COLUMNS))
    for kind, method in METHODS.items()
}
CHANGES = [
    pytest.param(start, path, value, annotation, id=".".join((start, *path)))
    for start, spec in STARTS.items()
    for path, value, annotation in leaves(spec)
    # What does not belong to the method is the same for every method: once is enough.
    if start == "delta" or path[0] == "method"
]


def test_every_field_of_every_part_is_walked_over() -> None:
    walked = {change.values[1] for change in CHANGES}
    assert len(walked) > 45
    assert {path[-1] for path in walked if path[:2] != ("corpus", "columns")} == set(
        trial_fields()
    ) - {"columns"}
    assert {path[0] for path in walked} == {field.name for field in dataclasses.fields(TrialSpec)}
    assert walked >= UNCOUNTED, "a field that is listed is no longer there"


@pytest.mark.parametrize(("start", "path", "value", "annotation"), CHANGES)
def test_any_single_field_changes_the_id(
    start: str, path: Path, value: Any, annotation: Any
) -> None:
    others = other_values(value, annotation)
    assert others
    changed = [identity(with_value(STARTS[start], path, other)) for other in others]
    if path in UNCOUNTED:
        assert set(changed) == {identity(STARTS[start])}
    else:
        assert len({identity(STARTS[start]), *changed}) == 1 + len(others)


def test_a_mapping_of_columns_counts() -> None:
    spec = STARTS["sft"]
    assert identity(with_value(spec, ("corpus", "columns"), None)) != identity(spec)


def test_any_two_fields_together_change_it_in_a_way_of_their_own() -> None:
    spec = STARTS["delta"]
    single = [
        (path, other_values(value, annotation)[0])
        for path, value, annotation in leaves(spec)
        if path not in UNCOUNTED
    ]
    changed = [spec, *(with_value(spec, *one) for one in single)]
    changed += [
        with_value(with_value(spec, *one), *other)
        for one, other in itertools.combinations(single, 2)
    ]
    assert len(changed) > 800
    assert len({identity(one) for one in changed}) == len(changed)


def test_a_hundred_thousand_specifications_have_as_many_ids() -> None:
    methods = [
        BaseSettings(),
        SftSettings(),
        *(
            DeltaSettings(rank=rank, alpha=alpha, peft_type=kind)
            for rank in (1, 2, 11)
            for alpha in (1.0, 11.0)
            for kind in ("lora", "ia3")
        ),
    ]
    trainings = [
        TrainingSpec(learning_rate=rate, batch_size=batch, epochs=epochs, max_steps=steps)
        for rate in (1e-4, 1e-5, 1.1e-4, 1e-14)
        for batch in (1, 11)
        for epochs in (1, 11)
        for steps in (None, 11)
    ]
    decodings = [
        DecodingSpec(beams=beams, valid_beams=valid)
        for beams in ((1,), (1, 2), (12,), (2, 1))
        for valid in ((1,), (1, 2))
    ]
    metrics = [MetricsSpec(), MetricsSpec(bertscore_model=None)]
    loaders: tuple[Loader, ...] = get_args(Loader)
    seeds = (0, 1, 11, 111, 2**31)
    ids = {
        identity(
            TrialSpec(
                model="m",
                method=method,
                training=training,
                decoding=decoding,
                metrics=scoring,
                loader=loader,
                seed=seed,
            )
        )
        for method, training, decoding, scoring, loader, seed in itertools.product(
            methods, trainings, decodings, metrics, loaders, seeds
        )
    }
    assert len(ids) == 14 * 32 * 8 * 2 * 3 * 5 > 100_000


def shuffled(value: Any, draw: random.Random) -> Any:
    """The same YAML data, its mappings in another order."""
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(one, draw) for one in value] if isinstance(value, list) else value


def ids_of(data: Any, scale: Scale = "paper") -> set[str]:
    """Ids of all trials of a search space, given as YAML data, those of winners left out."""
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    space = parse_space(parse_yaml("drawn.yaml", text))
    return {
        identity(spec)
        for stage in space.stages
        if stage.winner_of is None
        for spec in expand_stage(space, stage, scale, None, None)
    }


AXES: dict[str, list[Any]] = {
    "loader": ["v1", "v2", "shift"],
    "learning_rate": [1e-3, "1e-4", "5e-5", 1],
    "batch_size": [1, 2, 4],
    "epochs": [1, 2],
    "beams": [[1], [1, 2], [2, 1]],
    "split_seed": [0, 7],
    "rank": [4, 8],
    "bertscore_model": [None, "distilbert-base-uncased"],
}
METHOD_ENTRIES: list[dict[str, Any]] = [
    {"kind": "base"},
    {"kind": "sft"},
    {"kind": "sft", "loader": "v2"},
    {"kind": "delta"},
    {"kind": "delta", "rank": 2, "alpha": 4},
    {"kind": "delta", "peft_type": "ia3", "target_modules": ["c_attn"]},
]


@st.composite
def stages(draw: st.DrawFn) -> dict[str, Any]:
    axes = draw(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.lists(st.sampled_from(values), min_size=1, unique_by=repr, max_size=2)
                for name, values in AXES.items()
            },
        )
    )
    entries = draw(st.lists(st.sampled_from(METHOD_ENTRIES), min_size=1, unique_by=repr))
    seeds = draw(st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True))
    return {"name": "s", "grid": axes, "methods": entries, "seeds": seeds}


def default_values() -> dict[str, Any]:
    """Every field of a trial that has a default, with it, as YAML writes it."""
    written: dict[str, Any] = {}
    for part, cls in PARTS.items():
        for field in dataclasses.fields(cls):
            value = field.default
            written[field.name] = list(value) if isinstance(value, tuple) else value
            assert value is not dataclasses.MISSING, (part, field.name)
    return written


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    stage=stages(),
    draw=st.randoms(use_true_random=False),
    written=st.sets(st.sampled_from(sorted(default_values()))),
)
def test_how_a_search_space_is_written_does_not_count(
    stage: dict[str, Any], draw: random.Random, written: set[str]
) -> None:
    one = {"name": "one", "defaults": {"model": "medium"}, "stages": [stage]}
    other = {
        "name": "other",
        "description": "The same, told otherwise.",
        "defaults": {"model": "gpt2-medium"}
        | {name: default_values()[name] for name in sorted(written)},
        "stages": [
            {
                **stage,
                "name": "another",
                "grid": {axis: draw.sample(v, len(v)) for axis, v in stage["grid"].items()},
                "methods": draw.sample(stage["methods"], len(stage["methods"])),
                "seeds": stage["seeds"][::-1],
            }
        ],
    }
    assert ids_of(shuffled(other, draw)) == ids_of(one)


@pytest.mark.parametrize("name", bundled_names())
@pytest.mark.parametrize("scale", get_args(Scale))
def test_the_bundled_search_spaces_can_be_reordered_too(name: str, scale: Scale) -> None:
    from search_spaces import space as room

    data = yaml.safe_load((room._FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    ids = ids_of(data, scale)
    assert ids
    for seed in range(3):
        renamed = shuffled(data, random.Random(seed)) | {"name": f"renamed-{seed}"}
        assert ids_of(renamed, scale) == ids
    assert read_space(name).name == name


@st.composite
def dialogues(draw: st.DrawFn) -> tuple[Dialogue, ...]:
    """Few texts, so that two draws are often nearly alike."""
    said = st.builds(
        Utterance,
        turn=st.integers(0, 2),
        speaker=st.sampled_from(["patient", "therapist"]),
        text=st.sampled_from(["a", "b", 'a", "b', "a\\", "\u2028", "é", "e\u0301"]),
        act=st.sampled_from([None, "id", "None", "null"]),
    )
    return tuple(
        Dialogue(session, tuple(draw(st.lists(said, max_size=2))))
        for session in draw(st.sampled_from([("1",), ("1", "2"), ('1", 0',)]))
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(dialogues(), dialogues())
def test_a_corpus_of_other_content_has_another_hash(
    one: tuple[Dialogue, ...], other: tuple[Dialogue, ...]
) -> None:
    def said(sessions: tuple[Dialogue, ...]) -> list[tuple[str, Utterance]]:
        return [(dialogue.session, said) for dialogue in sessions for said in dialogue.utterances]

    assert (content_hash(one) == content_hash(other)) == (said(one) == said(other))
