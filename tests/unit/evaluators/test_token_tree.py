from __future__ import annotations

import random

import pytest
import torch

from evaluators.beams import cached_tokens, start_beams
from evaluators.causal_model import CausalModel
from evaluators.token_tree import TokenTree
from tests.unit.evaluators.tiny_models import EOS_ID, make_model, make_tuned

PROMPTS = [[3, 4, 5, 6, 7, 8, 9, 1, 2], [1, 2, 3, 4], [7], [2, 9]]
STEPS = 40
WIDTHS = (1, 2, 4)


def reading(family: str) -> CausalModel:
    return CausalModel(make_tuned(make_model(family)))


def alone(model: CausalModel, text: list[int]) -> torch.Tensor:
    scores: torch.Tensor = model.base(input_ids=torch.tensor([text])).logits[0, -1]
    return scores


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.inference_mode()
def test_beams_that_branch_and_leave_see_their_own_text_alone(family: str) -> None:
    model = reading(family)
    draw = random.Random(family)
    owners = [prompt for width in WIDTHS for prompt in range(len(PROMPTS)) for _ in range(width)]
    texts = [list(PROMPTS[owner]) for owner in owners]
    beams, scores = start_beams(model, PROMPTS, [0] * len(PROMPTS), torch.tensor(owners))
    assert isinstance(beams, TokenTree)
    assert scores.shape == (len(owners), EOS_ID + 1)
    held = []
    for step in range(STEPS):
        parents = [
            draw.choice([other for other, theirs in enumerate(owners) if theirs == owner])
            for owner in owners
        ]
        beams.follow(torch.tensor(parents), 0)
        tokens = [draw.randrange(EOS_ID) for _ in owners]
        texts = [[*texts[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        if step in (7, 23, 31):
            staying = sorted(draw.sample(range(len(owners)), len(owners) // 2))
            beams.keep(torch.tensor(staying))
            owners, texts, tokens = (
                [those[place] for place in staying] for those in (owners, texts, tokens)
            )
        scores = beams.step(torch.tensor(tokens))
        held.append(beams._cache.get_seq_length())
        for row, text in zip(scores, texts, strict=True):
            torch.testing.assert_close(row, alone(model, text), rtol=1e-3, atol=1e-3)
    assert max(held) < len(PROMPTS[0]) + sum(WIDTHS) * STEPS, "what no beam has passed must go"


def test_a_tree_holds_a_prompt_once() -> None:
    assert cached_tokens(reading("llama"), 50, WIDTHS, 20) == 50 + 7 * 20
    assert cached_tokens(reading("mistral"), 50, WIDTHS, 20) == 7 * (50 + 20)


def test_windows_and_foreign_attention_are_read_row_by_row() -> None:
    assert not reading("mistral").reads_trees
    model = make_model("llama")
    model.set_attn_implementation("flex_attention")
    assert not CausalModel(make_tuned(model)).reads_trees
