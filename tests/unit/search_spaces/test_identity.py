"""The same work has the same id; other work has another."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search_spaces.fields import METHODS, PARTS, method_fields, trial_fields
from search_spaces.identity import (
    short_number,
    spec_from_dict,
    spec_to_dict,
    spec_to_json,
    trial_id,
    trial_name,
)
from search_spaces.spec import (
    BaseSettings,
    ChatMglSettings,
    ColumnMapping,
    CorpusSpec,
    DecodingSpec,
    DeltaSettings,
    DialogueActSettings,
    MetricsSpec,
    NonLinearity,
    PeftType,
    Privacy,
    ReaderSettings,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from tests.unit.search_spaces.spaces import space, trials


def identity(spec: TrialSpec, **others: Any) -> str:
    known: dict[str, Any] = {
        "corpus_hash": "c",
        "model_fingerprint": "m",
        "metric_versions": {"rouge": "1", "meteor": "1"},
    }
    return trial_id(spec, **{**known, **others})


SPEC = TrialSpec(model="gpt2-medium", method=SftSettings())

OTHER_VALUES: dict[str, Any] = {
    "loader": "v2",
    "seed": 1,
    "columns": ColumnMapping(session="s", speaker="w", text="t"),
    "train_fraction": 0.5,
    "valid_fraction": 0.2,
    "test_fraction": 0.2,
    "split_seed": 1,
    "max_train_pairs": 5,
    "max_valid_pairs": 5,
    "max_test_pairs": 5,
    "learning_rate": 1e-5,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "epochs": 2,
    "max_steps": 2,
    "optimizer": "sgd",
    "lr_scheduler": "cosine",
    "warmup_steps": 1,
    "weight_decay": 0.1,
    "max_grad_norm": 0.0,
    "max_length": 64,
    "precision": "bf16",
    "loss_on": "all",
    "gradient_checkpointing": True,
    "packing": True,
    "protocol": "chatmgl",
    "beams": (1, 2),
    "valid_beams": (2,),
    "max_new_tokens": 8,
    "length_penalty": 0.5,
    "eval_batch_size": 4,
    "prompt_template": "{prompt}",
    "bertscore_model": None,
    "bertscore_layer": 5,
    "peft_type": "ia3",
    "rank": 2,
    "alpha": 8.0,
    "dropout": 0.1,
    "target_modules": ("c_attn",),
    "num_virtual_tokens": 4,
    "bottleneck": 8,
    "non_linearity": "tanh",
    "adapter_scale": 1.0,
    "acts": "gold",
    "tuning": "lora",
    "rl": "none",
    "rl_epochs": 2,
    "rl_learning_rate": 1e-6,
    "rl_batch_size": 8,
    "rl_mini_batch_size": 2,
    "rl_max_new_tokens": 8,
    "rl_temperature": 0.7,
    "rl_iterations": 1,
    "kl_coef": 0.1,
    "kl_target": None,
    "kl_horizon": 100,
    "gamma": 0.9,
    "gae_lambda": 0.9,
    "clip_range": 0.1,
    "value_clip_range": 0.1,
    "value_coef": 0.5,
    "value_model": "shared",
    "whiten_rewards": True,
    "num_generations": 4,
    "qa_data": "q.json",
    "preference_data": "p.json",
    "reward_model": None,
    "reward_epochs": 1,
    "reward_learning_rate": 1e-4,
    "reward_batch_size": 2,
    "act_loss_weight": 0.5,
    "act_reward_weight": 0.0,
    "similarity_weight": 0.0,
    "similarity_model": "s",
    "bleu1_weight": 0.0,
    "rouge1_weight": 0.0,
    "rouge2_weight": 0.0,
    "rouge_l_weight": 0.0,
    "bertscore_weight": 1.0,
    "reward_shift": 0.0,
}


def owner(name: str) -> Any:
    """The first method that has a setting of this name."""
    return next(cls for kind, cls in METHODS.items() if name in method_fields(kind))


def changed(name: str, value: Any) -> TrialSpec:
    part = trial_fields()[name].part
    if part == "method":
        method = owner(name)
        return dataclasses.replace(SPEC, method=method(**{name: value}))
    if not part:
        return dataclasses.replace(SPEC, **{name: value})
    return dataclasses.replace(SPEC, **{part: PARTS[part](**{name: value})})


def test_the_list_above_has_every_field_but_names() -> None:
    assert set(OTHER_VALUES) == set(trial_fields()) - {"model", "corpus", "privacy"}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_every_field_counts(name: str) -> None:
    plain = (
        dataclasses.replace(SPEC, method=owner(name)())
        if trial_fields()[name].part == "method"
        else SPEC
    )
    assert identity(changed(name, OTHER_VALUES[name])) != identity(plain)


def test_all_single_changes_are_told_apart() -> None:
    specs = [SPEC, *(changed(name, value) for name, value in OTHER_VALUES.items())]
    specs += [
        dataclasses.replace(SPEC, method=m()) for m in METHODS.values() if m is not SftSettings
    ]
    assert len({identity(spec) for spec in specs}) == len(specs)


def test_what_else_is_read_counts_by_its_content() -> None:
    """Not by the name under which it was found."""
    one, other = (
        dataclasses.replace(SPEC, method=ChatMglSettings(qa_data=name)) for name in ("a.json", "b")
    )
    assert identity(one) != identity(other)
    assert identity(one, inputs={"qa_data": "1"}) == identity(other, inputs={"qa_data": "1"})
    assert identity(one, inputs={"qa_data": "1"}) != identity(one, inputs={"qa_data": "2"})
    assert identity(one, inputs={}) == identity(one)


def test_contents_count_and_names_do_not() -> None:
    renamed = dataclasses.replace(SPEC, model="./folder", corpus=CorpusSpec(corpus="a/b.csv"))
    assert identity(renamed) == identity(SPEC)
    for privacy in get_args(Privacy):
        shown = dataclasses.replace(SPEC, corpus=CorpusSpec(privacy=privacy))
        assert identity(shown) == identity(SPEC)
    assert identity(SPEC, corpus_hash="d") != identity(SPEC)
    assert identity(SPEC, model_fingerprint="n") != identity(SPEC)
    assert identity(SPEC, metric_versions={"rouge": "2", "meteor": "1"}) != identity(SPEC)
    assert identity(SPEC, metric_versions={"rouge": "1"}) != identity(SPEC)


def test_the_order_of_metric_versions_does_not_count() -> None:
    assert identity(SPEC, metric_versions={"meteor": "1", "rouge": "1"}) == identity(SPEC)


def test_an_id_is_sixteen_hexadecimal_digits_and_stays() -> None:
    # A change of these two is a change of every result's id: results on disk would be lost.
    assert identity(SPEC) == "ac686956ede3af45"
    delta = dataclasses.replace(SPEC, method=DeltaSettings(rank=4), seed=3)
    assert identity(delta) == "8e46937ce48191cc"


def test_defaults_are_left_out_so_that_writing_them_out_changes_nothing() -> None:
    written = TrialSpec(
        model="gpt2-medium",
        method=SftSettings(kind="sft"),
        loader="v1",
        training=TrainingSpec(learning_rate=5e-5, max_steps=None),
        decoding=DecodingSpec(beams=(1, 2, 4)),
        metrics=MetricsSpec(bertscore_model="distilbert-base-uncased"),
    )
    assert written == SPEC
    assert identity(written) == identity(SPEC)


def test_equal_numbers_are_one_however_they_are_written() -> None:
    for one, other in (("5e-5", 0.00005), (1, 1.0), (-0.0, 0.0)):
        decoding = [DecodingSpec(length_penalty=value) for value in (one, other)]  # type: ignore[arg-type]
        first, second = (dataclasses.replace(SPEC, decoding=d) for d in decoding)
        assert first == second
        assert identity(first) == identity(second)


def test_the_order_of_a_file_and_the_names_in_it_do_not_count() -> None:
    one = space(
        """\
        name: one
        defaults: {model: medium, epochs: 2, batch_size: 4}
        stages:
          - name: a
            grid: {loader: [v1, v2], learning_rate: [1.0e-4, 5e-5]}
            methods: [{kind: sft}, {peft_type: lora, kind: delta, rank: 4}]
        """
    )
    other = space(
        """\
        description: The same, told otherwise.
        stages:
          - methods: [{kind: delta, rank: 4}, {kind: sft}]
            grid: {learning_rate: [0.00005, 1e-4], loader: [v2, v1]}
            name: b
        scales: {paper: {batch_size: 4}}
        defaults: {epochs: 2, model: gpt2-medium}
        name: other
        """
    )
    ids, other_ids = ({identity(spec) for spec in trials(s)} for s in (one, other))
    assert ids == other_ids
    assert len(ids) == 8


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (
            dataclasses.replace(SPEC, training=TrainingSpec(learning_rate=1e-4)),
            "gpt2-medium_sft_v1_lr1e-4_bs1_s0",
        ),
        (
            TrialSpec(
                model="models/my-gpt/",
                method=DeltaSettings(rank=4),
                loader="v2",
                seed=3,
                training=TrainingSpec(
                    learning_rate=0.01, batch_size=2, gradient_accumulation_steps=8
                ),
            ),
            "my-gpt_lora-r4_v2_lr0.01_bs16_s3",
        ),
        (TrialSpec(model="openai-community/gpt2", method=BaseSettings()), "gpt2_base_v1"),
        (
            TrialSpec(model="m", method=BaseSettings(), decoding=DecodingSpec(protocol="chatmgl")),
            "m_base_v1_chatmgl",
        ),
        (
            TrialSpec(model="m", method=DeltaSettings(peft_type="p-tuning", num_virtual_tokens=4)),
            "m_p-tuning-n4_v1_lr5e-5_bs1_s0",
        ),
        (
            TrialSpec(model="m", method=DeltaSettings(peft_type="bitfit")),
            "m_bitfit_v1_lr5e-5_bs1_s0",
        ),
        (
            TrialSpec(model="m", method=DeltaSettings(peft_type="houlsby")),
            "m_houlsby-b64_v1_lr5e-5_bs1_s0",
        ),
        (
            TrialSpec(model="m", method=DeltaSettings(peft_type="parallel", bottleneck=8)),
            "m_parallel-b8_v1_lr5e-5_bs1_s0",
        ),
        (
            TrialSpec(model="m", method=DialogueActSettings()),
            "m_dialogue_act-predicted_v1_lr5e-5_bs1_s0",
        ),
        (
            TrialSpec(model="m", method=DialogueActSettings(acts="gold", tuning="lora", rank=4)),
            "m_dialogue_act-gold-lora-r4_v1_lr5e-5_bs1_s0",
        ),
        (TrialSpec(model="m", method=ChatMglSettings()), "m_chatmgl-ppo_v1_lr5e-5_bs1_s0"),
        (TrialSpec(model="m", method=ReaderSettings(rl="none")), "m_reader-sft_v1_lr5e-5_bs1_s0"),
    ],
)
def test_names_read(spec: TrialSpec, name: str) -> None:
    assert trial_name(spec) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "1e-4"),
        (3e-4, "3e-4"),
        (2.5e-5, "2.5e-5"),
        (1e-3, "1e-3"),
        (0.005, "5e-3"),
        (0.01, "0.01"),
        (0.5, "0.5"),
        (1.0, "1"),
        (3, "3"),
        (1e-10, "1e-10"),
        (1e20, "1e20"),
        (0.0, "0"),
        (-1e-4, "-1e-4"),
    ],
)
def test_numbers_read(value: float, text: str) -> None:
    assert short_number(value) == text


@given(st.floats(1e-12, 1e6).map(lambda value: float(f"{value:.5g}")))
def test_a_short_number_is_that_number(value: float) -> None:
    assert float(short_number(value)) == pytest.approx(value, rel=1e-5)
    assert "e-0" not in short_number(value)


POSITIVE = st.floats(1e-9, 1e3, allow_nan=False)
COUNTS = st.integers(1, 2**20)
WORDS = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable())


def specs() -> st.SearchStrategy[TrialSpec]:
    """Specifications with any of their fields away from its default."""
    optional = {
        "learning_rate": POSITIVE,
        "batch_size": COUNTS,
        "epochs": COUNTS,
        "max_steps": st.none() | COUNTS,
        "weight_decay": st.floats(0, 1),
        "precision": st.sampled_from(["fp32", "bf16", "fp16"]),
        "gradient_checkpointing": st.booleans(),
        "max_length": st.integers(16, 4096),
    }
    delta = st.fixed_dictionaries(
        {},
        optional={
            "peft_type": st.sampled_from(get_args(PeftType)),
            "rank": COUNTS,
            "alpha": POSITIVE,
            "dropout": st.floats(0, 0.99),
            "bottleneck": COUNTS,
            "non_linearity": st.none() | st.sampled_from(get_args(NonLinearity)),
            "adapter_scale": POSITIVE,
            "target_modules": st.lists(WORDS, min_size=1, max_size=3).map(tuple),
        },
    )
    decoding = st.fixed_dictionaries(
        {},
        optional={
            "beams": st.lists(COUNTS, min_size=1, max_size=4).map(tuple),
            "length_penalty": st.floats(-5, 5),
            "prompt_template": WORDS.map(lambda text: f"{text}{{prompt}}\n"),
            "protocol": st.sampled_from(["clean", "chatmgl"]),
        },
    )
    columns = st.builds(
        ColumnMapping, session=WORDS, speaker=WORDS, text=WORDS, turn=st.none() | WORDS
    )
    return st.builds(
        TrialSpec,
        model=WORDS,
        method=st.just(BaseSettings())
        | st.just(SftSettings())
        | delta.map(lambda values: DeltaSettings(**values)),
        loader=st.sampled_from(["v1", "v2", "shift"]),
        seed=st.integers(0, 2**32 - 1),
        corpus=st.builds(CorpusSpec, corpus=WORDS, columns=st.none() | columns),
        training=st.fixed_dictionaries({}, optional=optional).map(lambda v: TrainingSpec(**v)),
        decoding=decoding.map(lambda values: DecodingSpec(**values)),
        metrics=st.builds(MetricsSpec, bertscore_model=st.none() | WORDS),
    )


@settings(deadline=None)
@given(specs())
def test_a_specification_survives_json(spec: TrialSpec) -> None:
    text = json.dumps(spec_to_dict(spec), allow_nan=False)
    assert json.loads(spec_to_json(spec)) == json.loads(text)
    again = spec_from_dict(json.loads(text))
    assert again == spec
    assert hash(again) == hash(spec)
    assert identity(again) == identity(spec)


@settings(deadline=None)
@given(specs(), specs())
def test_ids_are_equal_where_the_work_is(one: TrialSpec, other: TrialSpec) -> None:
    def work(spec: TrialSpec) -> TrialSpec:
        corpus = dataclasses.replace(spec.corpus, corpus="sample")
        return dataclasses.replace(spec, model="m", corpus=corpus)

    assert (identity(one) == identity(other)) == (work(one) == work(other))


def test_what_is_no_specification_is_refused() -> None:
    data = spec_to_dict(SPEC)
    with pytest.raises(ValidationError):
        spec_from_dict({**data, "extra": 1})
    with pytest.raises(ValidationError):
        spec_from_dict({**data, "training": {**data["training"], "learning_rate": float("nan")}})
    with pytest.raises(ValidationError):
        spec_from_dict({**data, "method": {"kind": "sft", "rank": 3}})


def test_methods_and_parts_are_all_frozen() -> None:
    for cls in (TrialSpec, ColumnMapping, *PARTS.values(), *METHODS.values()):
        assert cls.__dataclass_params__.frozen, cls  # type: ignore[attr-defined]
