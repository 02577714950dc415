from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from evaluators import beam_cache, decoding
from evaluators.causal_model import CausalModel
from evaluators.chatmgl_protocol import CHATMGL_MAX_NEW_TOKENS, CHATMGL_TEST_PAIRS
from evaluators.decoding import generate
from evaluators.errors import EvaluationError
from evaluators.replies import Reply
from search_spaces.spec import DecodingSpec
from tests.unit.evaluators.tiny_models import LETTERS, make_model, make_pairs, make_tuned

SHORT = DecodingSpec(max_new_tokens=12, eval_batch_size=8)


def test_every_reply_is_told_once_before_the_end() -> None:
    told: list[Reply] = []
    groups: list[int] = []

    def listen(replies: list[Reply]) -> None:
        told.extend(replies)
        groups.append(len(replies))

    replies = generate(
        make_tuned(make_model("llama")), make_pairs(), SHORT, (2, 1), 96, 0, on_replies=listen
    )
    assert [reply.beam for reply in replies] == [2] * 22 + [1] * 22
    assert Counter(told) == Counter(replies)
    assert len(groups) > 3


def test_settled_prompts_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    step = CausalModel.step

    def counted(self: CausalModel, tokens: torch.Tensor, *others: Any) -> torch.Tensor:
        rows.append(tokens.numel())
        return step(self, tokens, *others)

    monkeypatch.setattr(CausalModel, "step", counted)
    tuned = make_tuned(make_model("llama"))
    replies = generate(tuned, make_pairs(8), SHORT, (1,), 96, 0)
    lengths = [len(reply.reply) for reply in replies]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] == 8
    assert min(rows) < 8, lengths


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = make_tuned(make_model("llama"))
    whole = generate(tuned, make_pairs(), SHORT, (1, 2), 96, 0)
    held: list[int] = []
    step = CausalModel.step

    def watched(self: CausalModel, tokens: torch.Tensor, cache: Any, *others: Any) -> torch.Tensor:
        scores = step(self, tokens, cache, *others)
        held.append(len(tokens) * cache.get_seq_length())
        return scores

    monkeypatch.setattr(CausalModel, "step", watched)
    limit = 1000  # tokens
    token_bytes = beam_cache.bytes_per_token(tuned.model.config, torch.float32)
    assert token_bytes == 2 * 2 * 2 * 8 * 4
    monkeypatch.setattr(beam_cache, "_CPU_CACHE_BYTES", limit * token_bytes)
    assert generate(tuned, make_pairs(), SHORT, (1, 2), 96, 0) == whole
    assert held
    assert max(held) <= limit


def test_a_batch_that_does_not_fit_is_halved_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = make_tuned(make_model("gpt2"))
    whole = generate(tuned, make_pairs(), SHORT, (1, 2), 96, 0)
    tried: list[int] = []
    decode = decoding._decode

    def crowded(model: Any, batch: Sequence[Any], *others: Any) -> Iterator[Any]:
        tried.append(len(batch))
        for number, settled in enumerate(decode(model, batch, *others)):
            if len(batch) > 3 and number == 1:
                raise torch.OutOfMemoryError("no memory left")
            yield settled

    monkeypatch.setattr(decoding, "_decode", crowded)
    told: list[Reply] = []
    assert generate(tuned, make_pairs(), SHORT, (1, 2), 96, 0, on_replies=told.extend) == whole
    assert tried[:3] == [8, 4, 2]
    assert max(tried[2:]) == 2
    assert Counter(told) == Counter(whole)


def test_a_single_prompt_that_does_not_fit_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(CausalModel, "read", full)
    with pytest.raises(torch.OutOfMemoryError):
        generate(make_tuned(make_model("gpt2")), make_pairs(2), SHORT, (1,), 96, 0)


def test_a_reply_that_leaves_no_room_for_a_prompt_is_refused() -> None:
    tuned = make_tuned(make_model("gpt2", positions=40))
    with pytest.raises(EvaluationError, match=r"decoding: max_new_tokens: .*positions \(40"):
        generate(tuned, make_pairs(2), DecodingSpec(max_new_tokens=40), (1,), 512, 0)
    with pytest.raises(EvaluationError, match=r"within max_length \(16 tokens\), got 20"):
        generate(tuned, make_pairs(2), DecodingSpec(max_new_tokens=20), (1,), 16, 0)


def test_a_long_prompt_is_cut_to_what_the_model_can_read() -> None:
    tuned = make_tuned(make_model("gpt2", positions=48))
    replies = generate(tuned, make_pairs(), SHORT, (1, 4), 512, 0)
    assert len(replies) == 44


def test_an_empty_reply_is_allowed() -> None:
    model = make_model("llama")
    model.generation_config.eos_token_id = list(range(len(LETTERS) + 1))
    replies = generate(make_tuned(model), make_pairs(3), SHORT, (1, 2), 96, 0)
    assert [reply.reply for reply in replies] == [""] * 6


def test_the_models_settings_stay_as_they_were() -> None:
    tuned = make_tuned(make_model("gpt2", positions=256))
    model: Any = tuned.model
    before = copy.deepcopy(model.generation_config.to_dict())
    generate(tuned, make_pairs(3), SHORT, (1, 2), 96, 0)
    generate(tuned, make_pairs(1), DecodingSpec(protocol="chatmgl"), (2,), 256, 0)
    assert model.generation_config.to_dict() == before


def test_chatmgl_samples_the_first_prompts_and_scores_them_with_the_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from evaluators import chatmgl_protocol

    monkeypatch.setattr(chatmgl_protocol, "CHATMGL_TEST_PAIRS", 4)
    tuned = make_tuned(make_model("gpt2", positions=256))
    chatmgl = DecodingSpec(protocol="chatmgl", max_new_tokens=5)
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    replies = generate(tuned, make_pairs(), chatmgl, (1, 2), 256, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(replies) == 8
    assert any(len(reply.reply) > 5 for reply in replies), "max_new_tokens is the protocol's"
    for reply in replies:
        assert reply.scored_text == f"{reply.prompt} {reply.reply}".strip()
    assert generate(tuned, make_pairs(), chatmgl, (1, 2), 256, seed=7) == replies
    assert generate(tuned, make_pairs(), chatmgl, (2, 1), 256, seed=7) == replies[4:] + replies[:4]
    assert generate(tuned, make_pairs(), chatmgl, (1, 2), 256, seed=8) != replies
    greedy = generate(
        tuned, make_pairs(4), DecodingSpec(max_new_tokens=CHATMGL_MAX_NEW_TOKENS), (1,), 256, 0
    )
    assert [r.reply for r in greedy] != [r.reply for r in replies[:4]]


def test_the_protocols_numbers() -> None:
    assert (CHATMGL_MAX_NEW_TOKENS, CHATMGL_TEST_PAIRS) == (150, 60)


def test_no_pairs_no_replies() -> None:
    assert generate(make_tuned(make_model("gpt2")), [], SHORT, (1, 2), 96, 0) == []
