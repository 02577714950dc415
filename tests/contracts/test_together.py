"""Adapters that are decoded together give the replies that each gives alone."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from corpora.dialogue import PairSplits
from evaluators import decoding, together
from evaluators.causal_model import CausalModel
from evaluators.decoding import generate
from evaluators.evaluate import evaluate, parts_of
from evaluators.partial import PartialReplies
from evaluators.replies import Reply
from evaluators.score import StreamingScorer
from evaluators.together import Member, decode_together
from search_spaces.spec import DecodingSpec, DeltaSettings, MetricsSpec, TrainingSpec, TrialSpec
from tests.unit.evaluators.tiny_models import make_model, make_pairs, make_tokenizer
from trainers.errors import ModelError, StoppedError
from trainers.loading import load_model
from trainers.peft_adapters import load_adapter
from trainers.tuned import TunedModel

MAX_LENGTH = 96
TARGETS = {"gpt2": (["c_attn"], ["c_attn", "c_fc"]), "llama": (["q_proj"], ["q_proj", "up_proj"])}


@pytest.fixture(params=["gpt2", "llama", "mistral"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    make_model(request.param).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, seed: int, **settings: Any) -> Path:
    model, _ = load_model(base)
    ends = model.generation_config.eos_token_id
    family = "gpt2" if model.config.model_type == "gpt2" else "llama"
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        init_lora_weights=False,
        fan_in_fan_out=family == "gpt2",
        target_modules=TARGETS[family][seed % 2],
        **settings,
    )
    get_peft_model(model, config).save_pretrained(folder)
    GenerationConfig(eos_token_id=ends, max_new_tokens=7).save_pretrained(folder)
    return folder


def members(base: Path, folder: Path) -> list[Member]:
    """Four that differ in rank, scale, targets, pairs and, the last of them, in decoding."""
    shapes = [(2, 3.0), (4, 8.0), (3, 1.0), (4, 4.0)]
    pairs = make_pairs(22)
    found = []
    for number, (rank, alpha) in enumerate(shapes):
        some = pairs[number : number + 12]
        spec = TrialSpec(
            model=str(base),
            method=DeltaSettings(rank=rank, alpha=alpha),
            training=TrainingSpec(max_length=MAX_LENGTH),
            decoding=DecodingSpec(
                max_new_tokens=20 if number < 3 else 14,
                eval_batch_size=4 + number,
                beams=(1, 2, 4) if number != 1 else (1, 3),
                valid_beams=(1,),
            ),
            metrics=MetricsSpec(bertscore_model=None),
        )
        tuned = adapter(base, folder / f"adapter{number}", number, r=rank, lora_alpha=alpha)
        splits = PairSplits(train=(), valid=tuple(some[:4]), test=tuple(some[4:]))
        place = folder / f"trial{number}" / "replies.partial.jsonl"
        found.append(Member(tuned, spec, splits, place, f"key{number}"))
    return found


def alone(base: Path, member: Member) -> dict[str, list[Reply]]:
    model, tokenizer = load_model(base)
    tuned = load_adapter(model, member.folder)
    tuned.generation_config = GenerationConfig.from_pretrained(member.folder)
    one = TunedModel(tuned, tokenizer, member.folder, 0, 0)
    return {
        part: generate(one, pairs, member.spec.decoding, beams, MAX_LENGTH, 0)
        for part, (pairs, beams) in parts_of(member.spec, member.pairs).items()
    }


def kept(member: Member) -> dict[str, dict[tuple[int, str], Reply]]:
    with closing(PartialReplies(member.partial, member.key)) as settled:
        return {part: dict(settled.replies(part)) for part in ("valid", "test")}


def by_key(replies: dict[str, list[Reply]]) -> dict[str, dict[tuple[int, str], Reply]]:
    return {part: {(r.beam, r.pair_id): r for r in some} for part, some in replies.items()}


def test_replies_are_those_of_each_member_alone(base: Path, tmp_path: Path) -> None:
    group = members(base, tmp_path)
    decode_together(base, group)
    texts = set()
    for member in group:
        replies = alone(base, member)
        assert kept(member) == by_key(replies)
        texts.add(tuple(reply.reply for reply in replies["valid"]))
    assert len(texts) == 4, "the adapters must differ for the test to mean anything"


def test_what_is_known_is_not_decoded_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = members(base, tmp_path)
    decode_together(base, group)
    whole = [kept(member) for member in group]
    draw = random.Random(0)
    for member in group:
        lines = member.partial.read_bytes().splitlines(keepends=True)
        half = [line for line in lines[1:] if draw.random() < 0.5]
        member.partial.write_bytes(b"".join([lines[0], *half]))
    decode_together(base, group)
    assert [kept(member) for member in group] == whole
    monkeypatch.setattr(CausalModel, "read", pytest.fail)
    decode_together(base, group)


def test_a_trials_own_evaluation_only_scores_afterwards(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (member, *_) = members(base, tmp_path)
    decode_together(base, [member])
    model, tokenizer = load_model(base)
    model.generation_config = GenerationConfig.from_pretrained(member.folder)
    tuned = TunedModel(load_adapter(model, member.folder), tokenizer, member.folder, 0, 0)
    monkeypatch.setattr(CausalModel, "read", pytest.fail)
    with closing(StreamingScorer(member.spec.metrics)) as scorer:
        evaluation = evaluate(
            tuned, member.pairs, member.spec, scorer, partial=member.partial, key=member.key
        )
    assert len(evaluation.parts["test"][0]) == 24


def test_an_adapter_of_nan_disturbs_no_other(base: Path, tmp_path: Path) -> None:
    group = members(base, tmp_path)
    file = group[0].folder / "adapter_model.safetensors"
    save_file({k: torch.full_like(v, torch.nan) for k, v in load_file(file).items()}, file)
    decode_together(base, group)
    for member in group[1:]:
        assert kept(member) == by_key(alone(base, member))


def test_a_batch_that_does_not_fit_is_halved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = members(base, tmp_path)[:3]
    tried: list[int] = []
    decode = decoding._decode

    def crowded(model: Any, batch: Sequence[Any], *others: Any) -> Any:
        tried.append(len(batch))
        for number, settled in enumerate(decode(model, batch, *others)):
            if len(batch) > 5 and number == 1:
                raise torch.OutOfMemoryError("no memory left")
            yield settled

    monkeypatch.setattr(decoding, "_decode", crowded)
    decode_together(base, group)
    assert tried[:3] == [15, 7, 3], "4, 5 and 6 prompts at once alone"
    monkeypatch.undo()
    sizes = []
    for member in group:
        with closing(PartialReplies(member.partial, member.key)) as settled:
            sizes.append(settled.batch_size)
        assert kept(member) == by_key(alone(base, member))
    assert sizes == [3, 3, 3]


def test_stopping_keeps_what_has_settled(base: Path, tmp_path: Path) -> None:
    group = members(base, tmp_path)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 25

    with pytest.raises(StoppedError):
        decode_together(base, group, should_stop)
    some = sum(len(part) for member in group for part in kept(member).values())
    decode_together(base, group)
    assert 0 < some < sum(len(part) for member in group for part in kept(member).values())


def test_chatmgl_and_settings_of_transformers_are_left_to_evaluate(
    base: Path, tmp_path: Path
) -> None:
    first, second, third, _ = members(base, tmp_path)
    chatmgl = dataclasses.replace(first.spec.decoding, protocol="chatmgl")
    first = dataclasses.replace(first, spec=dataclasses.replace(first.spec, decoding=chatmgl))
    config = json.loads((second.folder / "generation_config.json").read_text())
    (second.folder / "generation_config.json").write_text(
        json.dumps({**config, "repetition_penalty": 1.5})
    )
    decode_together(base, [first, second, third])
    assert not first.partial.exists()
    assert not second.partial.exists()
    assert kept(third)["test"]


def test_an_adapter_that_is_no_plain_lora_is_refused(base: Path, tmp_path: Path) -> None:
    group = members(base, tmp_path)
    adapter(base, group[1].folder, 1, r=2, use_dora=True)
    with pytest.raises(ModelError, match="plain LoRA"):
        decode_together(base, group)


def test_the_base_is_as_it_was_afterwards(base: Path, tmp_path: Path) -> None:
    group = members(base, tmp_path)
    model, _ = load_model(base)
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).logits
    with together.row_adapters(model, [member.folder for member in group]) as rows:
        rows.members = torch.tensor([2])
        with torch.no_grad():
            assert not torch.equal(model(input_ids=ids).logits, before)
    assert torch.equal(model(input_ids=ids).logits, before)
