from __future__ import annotations

import itertools

import pytest
import torch

from evaluators.beam_search import Search, start_search, until_eos

CPU = torch.device("cpu")


def search_table(table: torch.Tensor, width: int, steps: int, **settings: object) -> Search:
    """Search where the next token's scores depend on the last token alone."""
    search = start_search(
        1, width, max_new_tokens=steps, eos_ids=[0], length_penalty=1.0, device=CPU
    )
    logits = table[1].repeat(width, 1)
    while not search.done.all():
        tokens, _ = search.advance(logits)
        logits = table[tokens]
    return search


def test_until_eos_cuts_before_the_first_end() -> None:
    assert until_eos([5, 6, 2, 7, 1], [1, 2]) == [5, 6]
    assert until_eos([5, 6], []) == [5, 6]


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_likeliest_text(seed: int) -> None:
    """Beams as wide as all texts miss nothing: they agree with trying every text."""
    torch.manual_seed(seed)
    table = torch.randn(4, 4) * 2
    steps = 3
    scores = {}
    logs = table.log_softmax(dim=-1)
    for text in itertools.product(range(4), repeat=steps):
        cut = tuple(until_eos(text, [0]))
        ended = (*cut, 0) if len(cut) < steps else cut
        last, total = 1, 0.0
        for token in ended:
            total += float(logs[last, token])
            last = token
        scores[cut] = total / len(ended)
    best = max(scores, key=lambda text: scores[text])
    assert tuple(search_table(table, 16, steps).reply(0)) == best


def test_greedy_takes_the_likeliest_token_and_stops_at_the_end() -> None:
    table = torch.full((4, 4), -9.0)
    table[1, 2] = table[2, 3] = table[3, 0] = 1.0
    search = search_table(table, 1, 10)
    assert search.reply(0) == [2, 3]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_prompts_do_not_touch_each_other_and_dropped_ones_leave_the_rest_alone(width: int) -> None:
    torch.manual_seed(3)
    tables = torch.randn(5, 6, 6) * 2
    alone = [search_table(table, width, 8).reply(0) for table in tables]
    search = start_search(5, width, max_new_tokens=8, eos_ids=[0], length_penalty=1.0, device=CPU)
    members = list(range(5))
    logits = tables[:, 1].repeat_interleave(width, dim=0)
    found: dict[int, list[int]] = {}
    while members:
        tokens, parents = search.advance(logits)
        assert (parents // width == torch.arange(len(tokens)) // width).all()
        for place in search.done.nonzero()[:, 0].tolist():
            found[members[place]] = search.reply(place)
        stay = (~search.done).nonzero()[:, 0]
        rows = (~search.done).repeat_interleave(width)
        members = [members[place] for place in stay.tolist()]
        search.keep(stay)
        owners = torch.tensor(members, dtype=torch.long).repeat_interleave(width)
        logits = tables[owners, tokens[rows]]
    assert [found[number] for number in range(5)] == alone
