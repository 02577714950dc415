"""Which tokens follow: greedy and beam search over next-token scores, without any model.

Both searches run P prompts side by side and give each exactly what it would get alone from
transformers' `generate(num_beams=n, do_sample=False, early_stopping=False, length_penalty=lp,
max_new_tokens=m)`. Shapes: P prompts, n beams a prompt, V tokens of the vocabulary, m new tokens.

Source: transformers 5.x, `generation/utils.py::_beam_search`, `::_sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

import torch
from torch import Tensor

_NEVER = -1.0e9
"""Score of what must not be chosen; transformers' own value, so that its arithmetic is ours."""


class Search(Protocol):
    """Prompts that are searched side by side at one beam width."""

    width: int
    done: Tensor
    """Whether each prompt's reply is settled; bool (P,)."""

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose every row's next token.

        Args:
            logits: next-token scores of every row, fp32 (P*n, V), rows of a prompt together.

        Returns:
            The tokens, int (P*n,), and the row each of them continues, int (P*n,).
        """
        ...

    def keep(self, prompts: Tensor) -> None:
        """Go on with some prompts only.

        Args:
            prompts: positions of those that stay, ascending, int (K,).
        """
        ...

    def reply(self, prompt: int) -> list[int]:
        """Best token ids found for the prompt at this position, end-of-text token excluded."""
        ...


def start_search(
    prompts: int,
    width: int,
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    length_penalty: float,
    device: torch.device,
) -> Search:
    """A search that has chosen nothing yet.

    Args:
        prompts: how many prompts are searched side by side.
        width: beams a prompt; 1 is greedy.
        max_new_tokens: longest reply in tokens.
        eos_ids: tokens that end a reply; may be empty.
        length_penalty: exponent of the length that a finished beam's score is divided by.
        device: where scores are.
    """
    if width == 1:
        return GreedySearch(prompts, max_new_tokens, eos_ids, device)
    return BeamSearch(prompts, width, max_new_tokens, eos_ids, length_penalty, device)


class GreedySearch:
    """The likeliest token, again and again, until it ends the text."""

    width = 1

    def __init__(
        self, prompts: int, max_new_tokens: int, eos_ids: Sequence[int], device: torch.device
    ) -> None:
        self._tokens = torch.zeros(prompts, max_new_tokens, dtype=torch.long, device=device)
        self._eos = torch.tensor(list(eos_ids), dtype=torch.long, device=device)
        self._length = 0
        self.done = torch.zeros(prompts, dtype=torch.bool, device=device)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the likeliest token; see `Search.advance`."""
        tokens = logits.argmax(dim=-1)
        self._tokens[:, self._length] = tokens
        self._length += 1
        self.done |= torch.isin(tokens, self._eos)
        if self._length == self._tokens.shape[1]:
            self.done[:] = True
        return tokens, torch.arange(len(tokens), device=tokens.device)

    def keep(self, prompts: Tensor) -> None:
        """Go on with some prompts only; see `Search.keep`."""
        self._tokens, self.done = self._tokens[prompts], self.done[prompts]

    def reply(self, prompt: int) -> list[int]:
        """Token ids chosen so far, up to the end of text."""
        return until_eos(self._tokens[prompt, : self._length].tolist(), self._eos.tolist())


class BeamSearch:
    """The n likeliest texts, and the best n of those that have ended."""

    def __init__(
        self,
        prompts: int,
        width: int,
        max_new_tokens: int,
        eos_ids: Sequence[int],
        length_penalty: float,
        device: torch.device,
    ) -> None:
        shape = (prompts, width)
        self.width = width
        self.done = torch.zeros(prompts, dtype=torch.bool, device=device)
        self._eos = torch.tensor(list(eos_ids), dtype=torch.long, device=device)
        self._max_new_tokens = max_new_tokens
        self._length = 0
        self._length_penalty = length_penalty
        # Only the first beam counts at the start: all are the same text.
        self._running_scores = torch.full(shape, _NEVER, device=device)
        self._running_scores[:, 0] = 0.0
        self._running = torch.zeros(*shape, max_new_tokens, dtype=torch.long, device=device)
        self._ended_scores = torch.full(shape, _NEVER, device=device)
        self._ended = torch.zeros_like(self._running)
        self._has_ended = torch.zeros(shape, dtype=torch.bool, device=device)
        self._can_improve = torch.ones(prompts, 1, dtype=torch.bool, device=device)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the n likeliest continuations of the n beams; see `Search.advance`."""
        prompts, width = self._running_scores.shape
        vocabulary = logits.shape[-1]
        scores = torch.log_softmax(logits, dim=-1).view(prompts, width, vocabulary)
        scores = (scores + self._running_scores[:, :, None]).view(prompts, width * vocabulary)

        # One candidate more per end-of-text token: n beams stay even if every beam may end here.
        candidates = min(max(2, 1 + len(self._eos)) * width, width * vocabulary)
        top_scores, top = scores.topk(candidates, dim=1)
        parents, tokens = top // vocabulary, top % vocabulary
        texts = _take(self._running, parents)
        texts[:, :, self._length] = tokens
        self._length += 1
        ends = torch.isin(tokens, self._eos)
        if self._length == self._max_new_tokens:
            ends[:] = True

        running_scores = top_scores + ends.float() * _NEVER
        chosen = running_scores.topk(width, dim=1)[1]
        self._running_scores = running_scores.gather(1, chosen)
        self._running = _take(texts, chosen)
        self._update_ended(top_scores, texts, ends)

        length = self._length**self._length_penalty
        best_running = self._running_scores[:, :1] / length
        worst_ended = torch.where(
            self._has_ended, self._ended_scores.min(dim=1, keepdim=True)[0], _NEVER
        )
        self._can_improve &= (best_running > worst_ended).any(dim=1, keepdim=True)
        self.done |= ~self._can_improve[:, 0] | ends.all(dim=1)

        first_rows = torch.arange(prompts, device=logits.device)[:, None] * width
        rows = parents.gather(1, chosen) + first_rows
        return self._running[:, :, self._length - 1].reshape(-1), rows.reshape(-1)

    def _update_ended(self, scores: Tensor, texts: Tensor, ends: Tensor) -> None:
        """Keep the best n ended texts.

        Args:
            scores: summed log-probabilities of the candidates, fp32 (P, C).
            texts: their tokens, int (P, C, m).
            ends: which of them end here, bool (P, C).
        """
        ended_here = ends.clone()
        ended_here[:, self.width :] = False  # only the best n candidates may end a text
        scores = scores / (self._length**self._length_penalty)
        scores = scores + (~self._can_improve).float() * _NEVER + (~ended_here).float() * _NEVER
        best = torch.cat((self._ended_scores, scores), dim=1).topk(self.width, dim=1)[1]
        self._ended_scores = torch.cat((self._ended_scores, scores), dim=1).gather(1, best)
        self._ended = _take(torch.cat((self._ended, texts), dim=1), best)
        self._has_ended = torch.cat((self._has_ended, ended_here), dim=1).gather(1, best)

    def keep(self, prompts: Tensor) -> None:
        """Go on with some prompts only; see `Search.keep`."""
        self.done = self.done[prompts]
        self._running_scores, self._running = self._running_scores[prompts], self._running[prompts]
        self._ended_scores, self._ended = self._ended_scores[prompts], self._ended[prompts]
        self._has_ended = self._has_ended[prompts]
        self._can_improve = self._can_improve[prompts]

    def reply(self, prompt: int) -> list[int]:
        """Token ids of the best ended text, up to the end of text."""
        return until_eos(self._ended[prompt, 0, : self._length].tolist(), self._eos.tolist())


def _take(texts: Tensor, index: Tensor) -> Tensor:
    """Texts (P, C, m) at `index` (P, K): (P, K, m), a new tensor."""
    return texts.gather(1, index[:, :, None].expand(-1, -1, texts.shape[-1]))


def until_eos(tokens: Sequence[int], eos_ids: Sequence[int]) -> list[int]:
    """The tokens before the first that ends the text.

    Args:
        tokens: token ids.
        eos_ids: tokens that end a text.
    """
    return list(takewhile(lambda token: token not in eos_ids, tokens))
