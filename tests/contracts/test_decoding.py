"""Every model family and every PEFT type: our batched loop gives transformers' own replies."""

from __future__ import annotations

import logging
import random
import warnings
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)

from corpora.dialogue import Pair
from evaluators.causal_model import CausalModel
from evaluators.decoding import generate
from evaluators.replies import Reply
from search_spaces.spec import DecodingSpec, DeltaSettings, PeftType
from tests.unit.evaluators.tiny_models import make_model, make_pairs, make_tuned
from trainers.bottleneck import add_bottlenecks
from trainers.encoding import encode_prompt
from trainers.tuned import TunedModel

MAX_LENGTH = 96
NEW_TOKENS = 20
WIDTHS = (1, 2, 4)
PEFT_CONFIGS: dict[str, Any] = {
    "lora": lambda: LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, init_lora_weights=False),
    "prefix": lambda: PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5),
    "prompt": lambda: PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5),
    "p-tuning": lambda: PromptEncoderConfig(
        task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5, encoder_hidden_size=16
    ),
    "ia3": lambda: IA3Config(task_type=TaskType.CAUSAL_LM, init_ia3_weights=False),
    "ln-tuning": lambda: LNTuningConfig(task_type=TaskType.CAUSAL_LM),
}


def peft_tuned(family: str, peft_type: str) -> TunedModel:
    base = make_model(family)
    with warnings.catch_warnings():
        # PEFT sets GPT-2's transposed weights by itself and says so, does not know layer norms for
        # layers, and asks transformers under a name that will go.
        for message in ("fan_in_fan_out", "Unsupported layer type", "`is_gradient_checkpointing`"):
            warnings.filterwarnings("ignore", message=message)
        model = get_peft_model(base, PEFT_CONFIGS[peft_type]())
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return make_tuned(model.eval())


def alone(
    tuned: TunedModel, pairs: list[Pair], width: int, length_penalty: float
) -> list[list[int]]:
    """transformers' own replies, one prompt at a time, up to the end of text."""
    model: Any = tuned.model
    virtual = CausalModel(tuned).virtual_tokens
    stops = model.generation_config.eos_token_id
    replies = []
    for pair in pairs:
        room = MAX_LENGTH - virtual - NEW_TOKENS
        prompt = encode_prompt(tuned.tokenizer, pair.prompt, DecodingSpec().prompt_template, room)
        ids = torch.tensor([prompt])
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=width,
                do_sample=False,
                early_stopping=False,
                length_penalty=length_penalty,
                max_new_tokens=NEW_TOKENS,
            )
        reply = output[0, len(prompt) :].tolist()
        ends = [reply.index(stop) for stop in stops if stop in reply]
        replies.append(reply[: min(ends)] if ends else reply)
    return replies


def assert_equal_to_transformers(
    tuned: TunedModel, pairs: list[Pair], length_penalty: float
) -> None:
    decoding = DecodingSpec(
        max_new_tokens=NEW_TOKENS, length_penalty=length_penalty, eval_batch_size=9
    )
    ours = generate(tuned, pairs, decoding, WIDTHS, MAX_LENGTH, seed=0)
    assert [(reply.beam, reply.pair_id) for reply in ours] == [
        (width, pair.pair_id) for width in WIDTHS for pair in pairs
    ]
    lengths = set()
    for width in WIDTHS:
        theirs = alone(tuned, pairs, width, length_penalty)
        lengths |= {len(reply) for reply in theirs}
        texts = [
            tuned.tokenizer.decode(reply, skip_special_tokens=True).strip() for reply in theirs
        ]
        assert [reply.reply for reply in ours if reply.beam == width] == texts, width
    assert len(lengths) > 3, "replies must end at different steps for the test to mean anything"


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_replies_are_those_of_transformers_for_one_prompt_at_a_time(
    family: str, length_penalty: float
) -> None:
    tuned = make_tuned(make_model(family))
    assert CausalModel(tuned).can_batch
    assert_equal_to_transformers(tuned, make_pairs(), length_penalty)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("peft_type", PEFT_CONFIGS)
def test_replies_of_peft_models_are_those_of_peft(
    family: str, peft_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    assert_equal_to_transformers(peft_tuned(family, peft_type), make_pairs(21)[::2], 1.0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("peft_type", ["houlsby", "parallel"])
def test_replies_of_bottleneck_adapters_are_those_of_transformers(
    family: str, peft_type: PeftType
) -> None:
    settings = DeltaSettings(peft_type=peft_type, bottleneck=8)
    model = add_bottlenecks(make_model(family), settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    tuned, plain = make_tuned(model.eval()), make_tuned(make_model(family))
    assert CausalModel(tuned).can_batch
    pairs = make_pairs(21)[::2]
    assert_equal_to_transformers(tuned, pairs, 1.0)
    assert alone(tuned, pairs, 1, 1.0) != alone(plain, pairs, 1, 1.0)


@pytest.mark.parametrize("peft_type", PEFT_CONFIGS)
def test_peft_adapter_changes_the_replies(peft_type: str) -> None:
    decoding = DecodingSpec(max_new_tokens=NEW_TOKENS)
    pairs = make_pairs(4)
    plain = generate(make_tuned(make_model("gpt2")), pairs, decoding, (1,), MAX_LENGTH, 0)
    tuned = generate(peft_tuned("gpt2", peft_type), pairs, decoding, (1,), MAX_LENGTH, 0)
    assert [reply.reply for reply in plain] != [reply.reply for reply in tuned]


@pytest.mark.parametrize("peft_type", ["prefix", "prompt", "p-tuning"])
def test_first_scores_are_those_of_the_training_forward(peft_type: str) -> None:
    """Padding and virtual tokens stand where training had them: nowhere and in front."""
    tuned = peft_tuned("gpt2", peft_type)
    model = CausalModel(tuned)
    prompts = [[3, 4, 5], [7], [1, 2, 3, 4, 5, 6, 8]]
    with torch.inference_mode():
        ours = model.read(prompts).logits
        for row, prompt in zip(ours, prompts, strict=True):
            ids = torch.tensor([prompt])
            theirs = tuned.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
            torch.testing.assert_close(row, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "peft_type"),
    [
        ("gpt2", None),
        ("llama", None),
        ("mistral", None),
        ("gpt2", "prefix"),
        ("llama", "prompt"),
        ("llama", "lora"),
    ],
)
def test_replies_may_come_from_several_runs(family: str, peft_type: str | None) -> None:
    """Whatever is known already, at whatever widths, the rest comes out as it would have."""
    tuned = make_tuned(make_model(family)) if peft_type is None else peft_tuned(family, peft_type)
    pairs = make_pairs(21)[::2]
    decoding = DecodingSpec(max_new_tokens=NEW_TOKENS, eval_batch_size=4)
    whole = generate(tuned, pairs, decoding, WIDTHS, MAX_LENGTH, seed=0)
    draw = random.Random(f"{family} {peft_type}")
    for share in (0.2, 0.5, 0.9):
        known = {(r.beam, r.pair_id): r for r in whole if draw.random() < share}
        told: list[Reply] = []
        again = generate(
            tuned, pairs, decoding, WIDTHS, MAX_LENGTH, 0, on_replies=told.extend, known=known
        )
        assert again == whole
        assert told[: len(known)] == [r for r in whole if (r.beam, r.pair_id) in known]
        assert len(told) == len(whole)


def test_settings_that_change_scores_are_left_to_transformers() -> None:
    tuned = make_tuned(make_model("llama"))
    model: Any = tuned.model
    model.generation_config.repetition_penalty = 1.7
    assert not CausalModel(tuned).can_batch
    assert_equal_to_transformers(tuned, make_pairs(6), 1.0)
