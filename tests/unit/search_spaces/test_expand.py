"""Every combination once, none that a method makes equal twice."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import SearchSpaceError
from search_spaces.expand import expand_stage, field_value, model_at_scale
from search_spaces.spec import (
    BaseSettings,
    DecodingSpec,
    DeltaSettings,
    MetricsSpec,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from tests.unit.search_spaces.spaces import one_stage, space, trials

SFT = "methods: [{kind: sft}]"


def values(found: tuple[TrialSpec, ...], *names: str) -> list[Any]:
    rows = [tuple(field_value(spec, name) for name in names) for spec in found]
    return [row[0] for row in rows] if len(names) == 1 else rows


def test_a_grid_is_every_combination_in_the_order_written() -> None:
    found = trials(one_stage(f"grid: {{loader: [v2, v1], batch_size: [1, 4]}}\n{SFT}"))
    assert values(found, "loader", "batch_size") == [("v2", 1), ("v2", 4), ("v1", 1), ("v1", 4)]


def test_zipped_axes_go_together_inside_every_grid_point() -> None:
    found = trials(
        one_stage(
            f"grid: {{loader: [v1, v2]}}\nzip: {{batch_size: [1, 4], warmup_steps: [9, 3]}}\n{SFT}"
        )
    )
    assert values(found, "loader", "batch_size", "warmup_steps") == [
        ("v1", 1, 9),
        ("v1", 4, 3),
        ("v2", 1, 9),
        ("v2", 4, 3),
    ]


def test_zipped_pairs_that_are_equal_are_one_trial() -> None:
    found = trials(one_stage(f"zip: {{batch_size: [1, 1, 2], epochs: [3, 3, 3]}}\n{SFT}"))
    assert values(found, "batch_size") == [1, 2]


def test_seeds_and_methods_multiply() -> None:
    found = trials(
        one_stage("seeds: [5, 6]\ngrid: {epochs: [1, 2]}\nmethods: [{kind: sft}, {kind: delta}]")
    )
    assert values(found, "kind", "epochs", "seed") == [
        (kind, epochs, seed) for kind in ("sft", "delta") for epochs in (1, 2) for seed in (5, 6)
    ]


def test_exclusions_take_out_what_matches_in_every_named_field() -> None:
    found = trials(
        one_stage(
            "grid: {loader: [v1, v2], batch_size: [1, 4]}\n"
            "exclude: [{loader: v2, batch_size: 4}, {kind: delta, loader: v1}, {rank: 9}]\n"
            "methods: [{kind: sft}, {kind: delta}]"
        )
    )
    assert values(found, "kind", "loader", "batch_size") == [
        ("sft", "v1", 1),
        ("sft", "v1", 4),
        ("sft", "v2", 1),
        ("delta", "v2", 1),
    ]


@pytest.mark.parametrize("scale", ["paper", "laptop"])
def test_a_model_is_excluded_by_the_name_the_file_gives_it(scale: Any) -> None:
    one = one_stage(f"grid: {{model: [medium, large]}}\nexclude: [{{model: large}}]\n{SFT}")
    assert values(trials(one, scale=scale), "model") == [model_at_scale("medium", scale)]


def test_seeds_can_be_excluded() -> None:
    one = one_stage(
        f"seeds: [0, 1]\ngrid: {{epochs: [1, 2]}}\nexclude: [{{seed: 1, epochs: 2}}]\n{SFT}"
    )
    assert values(trials(one), "epochs", "seed") == [(1, 0), (1, 1), (2, 0)]


def test_a_stage_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="stage only: `exclude` leaves no trial to run"):
        trials(one_stage(f"exclude: [{{loader: v1}}]\n{SFT}"))


def test_a_stage_without_a_model_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="no `model` is named in"):
        trials(one_stage(SFT, top="defaults: {epochs: 2}"))


def test_base_is_one_trial_a_model_whatever_the_training_axes() -> None:
    found = trials(
        one_stage(
            "seeds: [0, 1]\n"
            "grid: {model: [medium, large], learning_rate: [1.0e-4, 1.0e-5], batch_size: [1, 2],"
            " epochs: [1, 2], optimizer: [sgd, adafactor], precision: [fp32, bf16]}\n"
            "methods: [{kind: base}]"
        )
    )
    assert values(found, "model", "seed") == [("gpt2-medium", 0), ("gpt2-large", 0)]
    assert found[0].training == TrainingSpec()


def test_base_is_multiplied_by_what_it_does_read() -> None:
    found = trials(
        one_stage(
            "grid: {loader: [v1, v2], max_length: [64, 128], loss_on: [reply, all]}\n"
            "methods: [{kind: base}]"
        )
    )
    assert len(found) == 8


def test_base_draws_under_the_chatmgl_protocol_only() -> None:
    one = "seeds: [0, 1]\ngrid: {protocol: [clean, chatmgl]}\nmethods: [{kind: base}]"
    assert values(trials(one_stage(one)), "protocol", "seed") == [
        ("clean", 0),
        ("chatmgl", 0),
        ("chatmgl", 1),
    ]


def test_chatmgl_ignores_lengths_of_its_own() -> None:
    one = f"grid: {{max_new_tokens: [8, 16], length_penalty: [1, 2], protocol: [chatmgl]}}\n{SFT}"
    (spec,) = trials(one_stage(one))
    assert spec.decoding == DecodingSpec(protocol="chatmgl")


def test_a_layer_without_an_encoder_is_no_axis() -> None:
    one = f"grid: {{bertscore_layer: [3, 4]}}\n{SFT}"
    assert len(trials(one_stage(one, top="defaults: {model: m, bertscore_model: null}"))) == 1


@pytest.mark.parametrize(
    ("peft_type", "count"),
    [
        ("lora", 4),
        ("ia3", 1),
        ("prefix", 3),
        ("prompt", 3),
        ("p-tuning", 3),
        ("ln-tuning", 1),
        ("bitfit", 1),
        ("houlsby", 6),
        ("parallel", 12),
    ],
)
def test_a_peft_type_is_multiplied_by_what_it_reads(peft_type: str, count: int) -> None:
    one = (
        f"grid: {{rank: [2, 4], alpha: [8, 16], num_virtual_tokens: [4, 8, 16], "
        f"bottleneck: [8, 16, 32], adapter_scale: [1, 4], non_linearity: [relu, tanh]}}\n"
        f"methods: [{{kind: delta, peft_type: {peft_type}}}]"
    )
    assert len(trials(one_stage(one))) == count


def test_a_full_tuning_reads_no_rank() -> None:
    one = "grid: {acts: [gold, none], tuning: [full, lora], rank: [2, 4]}\nmethods: [{kind: dialogue_act}]"
    assert values(trials(one_stage(one)), "acts", "tuning", "rank") == [
        ("gold", "full", 8),
        ("gold", "lora", 2),
        ("gold", "lora", 4),
        ("none", "full", 8),
        ("none", "lora", 2),
        ("none", "lora", 4),
    ]


def test_peft_types_can_be_an_axis() -> None:
    one = "grid: {peft_type: [lora, prefix], rank: [2, 4]}\nmethods: [{kind: delta}, {kind: sft}]"
    assert values(trials(one_stage(one)), "kind", "peft_type", "rank") == [
        ("delta", "lora", 2),
        ("delta", "lora", 4),
        ("delta", "prefix", 8),
        ("sft", None, None),
    ]


def test_what_a_method_says_of_itself_stays() -> None:
    found = trials(
        one_stage(
            "grid: {learning_rate: [1.0e-4, 1.0e-5], rank: [2, 4]}\n"
            "methods: [{kind: delta, learning_rate: 1.0e-3}, {kind: delta, rank: 16}]"
        )
    )
    assert values(found, "rank", "learning_rate") == [
        (2, 1e-3),
        (4, 1e-3),
        (16, 1e-4),
        (16, 1e-5),
    ]


def test_entries_that_come_out_equal_are_one_trial() -> None:
    one = one_stage("methods: [{kind: sft}, {kind: sft, loader: v1}, {kind: sft, epochs: 1}]")
    assert len(trials(one)) == 1


def test_defaults_then_scale_then_axes() -> None:
    one = one_stage(
        f"grid: {{epochs: [7]}}\n{SFT}",
        top="defaults: {model: medium, max_length: 64, batch_size: 2, epochs: 3}\n"
        "scales: {paper: {max_length: 512}, laptop: {batch_size: 8, epochs: 5}}",
    )
    (paper,), (laptop,) = trials(one), trials(one, scale="laptop")
    assert (paper.model, paper.training) == (
        "gpt2-medium",
        TrainingSpec(max_length=512, batch_size=2, epochs=7),
    )
    assert (laptop.model, laptop.training) == (
        "laptop-medium",
        TrainingSpec(max_length=64, batch_size=8, epochs=7),
    )


def test_only_two_names_mean_something_else_at_another_scale() -> None:
    assert model_at_scale("medium", "paper") == "gpt2-medium"
    assert model_at_scale("large", "paper") == "gpt2-large"
    assert model_at_scale("medium", "laptop") == "laptop-medium"
    assert model_at_scale("large", "laptop") == "laptop-large"
    for name in ("gpt2-medium", "laptop-large", "./large", "Medium"):
        assert model_at_scale(name, "laptop") == model_at_scale(name, "paper") == name


def test_the_command_line_corpus_wins() -> None:
    one = one_stage(f"grid: {{corpus: [a.csv, b.csv]}}\n{SFT}")
    assert values(trials(one), "corpus") == ["a.csv", "b.csv"]
    assert values(trials(one, corpus="c.csv"), "corpus") == ["c.csv"]


TWO_STAGES = """\
    name: two
    defaults: {model: medium, learning_rate: 1.0e-3, batch_size: 8, rank: 4, max_new_tokens: 9}
    scales: {paper: {precision: bf16, num_virtual_tokens: 3}}
    seeds: [0, 1]
    stages:
      - name: first
        grid: {learning_rate: [1.0e-4, 1.0e-5], loader: [v1, v2]}
        methods: [{kind: base}, {kind: sft}, {kind: delta, peft_type: lora}]
      - name: second
        from: {stage: first, best: valid/loss, mode: min}
        methods:
          - {kind: sft, loader: shift}
          - {kind: sft, batch_size: 2}
          - {kind: delta, peft_type: prefix}
          - {kind: delta, peft_type: lora, learning_rate: 0.1}
    """


def winner(kind: str, *settings: str) -> TrialSpec:
    found = [s for s in trials(space(TWO_STAGES, *settings)) if s.method.kind == kind]
    return found[-1]


def test_a_stage_has_its_winners_settings_and_its_methods_win_over_them() -> None:
    best = winner("sft")
    assert (best.loader, best.training.learning_rate, best.seed) == ("v2", 1e-5, 1)
    found = trials(space(TWO_STAGES), 1, winner=best)
    assert values(
        found[::2], "kind", "loader", "learning_rate", "batch_size", "precision", "max_new_tokens"
    ) == [
        ("sft", "shift", 1e-5, 8, "bf16", 9),
        ("sft", "v2", 1e-5, 2, "bf16", 9),
        ("delta", "v2", 1e-5, 8, "bf16", 9),
        ("delta", "v2", 0.1, 8, "bf16", 9),
    ]
    assert values(found, "seed") == [0, 1] * 4


def test_a_stage_after_a_winner_still_has_the_spaces_method_settings() -> None:
    found = trials(space(TWO_STAGES), 1, winner=winner("sft"))
    assert found[4].method == DeltaSettings(peft_type="prefix", num_virtual_tokens=3)
    assert found[6].method == DeltaSettings(peft_type="lora", rank=4)
    found = trials(space(TWO_STAGES, "rank=6"), 1, winner=winner("sft", "rank=6"))
    assert found[6].method == DeltaSettings(peft_type="lora", rank=6)


def test_a_winner_that_is_not_trained_leaves_the_spaces_training_settings() -> None:
    best = winner("base")
    assert best.training == TrainingSpec()
    found = trials(space(TWO_STAGES), 1, winner=best)
    assert values(found[::2], "loader", "learning_rate", "batch_size", "precision") == [
        ("shift", 1e-3, 8, "bf16"),
        ("v2", 1e-3, 2, "bf16"),
        ("v2", 1e-3, 8, "bf16"),
        ("v2", 0.1, 8, "bf16"),
    ]


def test_a_winning_methods_settings_go_to_methods_of_its_kind() -> None:
    one = space(
        """\
        name: two
        defaults: {model: medium}
        stages:
          - name: first
            grid: {rank: [2, 16]}
            methods: [{kind: delta}]
          - name: second
            from: {stage: first, best: valid/loss, mode: min}
            methods: [{kind: delta, epochs: 5}, {kind: delta, rank: 3}, {kind: sft}]
        """
    )
    best = trials(one)[1]
    found = trials(one, 1, winner=best)
    assert [spec.method for spec in found] == [
        DeltaSettings(rank=16),
        DeltaSettings(rank=3),
        SftSettings(),
    ]


def test_a_stage_after_a_winner_can_have_axes() -> None:
    one = space(
        TWO_STAGES.replace("        from:", "        grid: {epochs: [2, 3]}\n        from:")
    )
    assert len(trials(one, 1, winner=winner("sft"))) == 16


def test_a_field_by_its_bare_name() -> None:
    spec = TrialSpec(model="m", method=DeltaSettings(rank=3), seed=4)
    assert field_value(spec, "rank") == 3
    assert field_value(spec, "kind") == "delta"
    assert field_value(spec, "seed") == 4
    assert field_value(spec, "corpus") == "sample"
    assert field_value(TrialSpec(model="m", method=SftSettings()), "rank") is None


AXES = {
    "learning_rate": [1e-3, 1e-4, 1e-5],
    "batch_size": [1, 2, 4],
    "loader": ["v1", "v2", "shift"],
    "rank": [2, 4],
    "num_virtual_tokens": [4, 8],
    "beams": [[1], [1, 4]],
    "protocol": ["clean", "chatmgl"],
    "max_new_tokens": [8, 16],
    "model": ["medium", "large"],
}
METHODS = [
    "{kind: base}",
    "{kind: sft}",
    *(f"{{kind: delta, peft_type: {p}}}" for p in ("lora", "prefix", "bitfit")),
]


@st.composite
def stages(draw: st.DrawFn) -> tuple[dict[str, list[Any]], list[str], list[int]]:
    names = draw(st.lists(st.sampled_from(sorted(AXES)), unique=True, max_size=4))
    grid = {n: draw(st.lists(st.sampled_from(AXES[n]), min_size=1, unique_by=repr)) for n in names}
    methods = draw(st.lists(st.sampled_from(METHODS), min_size=1, unique=True))
    return grid, methods, draw(st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True))


def write_stage(grid: dict[str, list[Any]], methods: list[str], seeds: list[int]) -> str:
    axes = ", ".join(f"{name}: {listed}" for name, listed in grid.items())
    return f"grid: {{{axes}}}\nmethods: [{', '.join(methods)}]\nseeds: {seeds}"


@given(stages(), st.randoms(use_true_random=False))
def test_the_order_of_axes_values_methods_and_seeds_makes_no_other_trials(
    stage: tuple[dict[str, list[Any]], list[str], list[int]], random: Any
) -> None:
    grid, methods, seeds = stage
    found = trials(one_stage(write_stage(grid, methods, seeds)))
    shuffled = {
        name: random.sample(grid[name], len(grid[name]))
        for name in random.sample(sorted(grid), len(grid))
    }
    other = trials(
        one_stage(
            write_stage(
                shuffled, random.sample(methods, len(methods)), random.sample(seeds, len(seeds))
            )
        )
    )
    assert set(found) == set(other)
    assert len(found) == len(set(found)) == len(other)


@given(stages())
def test_what_comes_out_depends_on_nothing_that_is_ignored(
    stage: tuple[dict[str, list[Any]], list[str], list[int]],
) -> None:
    for spec in trials(one_stage(write_stage(*stage))):
        match spec.method:
            case BaseSettings():
                assert spec.training == TrainingSpec()
            case DeltaSettings(peft_type="prefix"):
                assert spec.method.rank == DeltaSettings().rank
            case DeltaSettings(peft_type="lora"):
                assert spec.method.num_virtual_tokens == DeltaSettings().num_virtual_tokens
            case DeltaSettings():
                assert spec.method == DeltaSettings(peft_type="bitfit")
            case _:
                pass


@given(stages())
def test_expanding_a_trial_again_changes_nothing(
    stage: tuple[dict[str, list[Any]], list[str], list[int]],
) -> None:
    """A winner that is its own successor: the settings it has are the settings it gets."""
    grid, methods, seeds = stage
    one = one_stage(write_stage(grid, methods, seeds))
    for best in trials(one)[:3]:
        entry = next(
            e for e in one.stages[0].methods if field_value(best, "kind") == e.settings.kind
        )
        after = dataclasses.replace(
            one.stages[0],
            grid={},
            seeds=(best.seed,),
            methods=(dataclasses.replace(entry, written=frozenset()),),
        )
        assert expand_stage(one, after, "paper", None, best) == (best,)


def test_metrics_are_a_stages_too() -> None:
    (spec,) = trials(one_stage(SFT, "bertscore_model=null"))
    assert spec.metrics == MetricsSpec(bertscore_model=None)
