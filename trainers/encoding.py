"""Text to tokens, the same way for training and for generation.

Prompt and reply are tokenised apart and joined as ids, so that the tokens a model is asked to
continue are exactly those it was trained to continue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corpora.dialogue import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
"""Label of a token that does not count in the loss (PyTorch's and Hugging Face's convention)."""

_WORD_STARTS = ("\u0120", "\u2581")
"""How byte-level BPE and SentencePiece mark a token that begins with a space."""

_LONGEST_WORD = 8
"""A longer run of tokens without a space is no word: it is cut where the length says."""


@dataclass(frozen=True)
class EncodedPair:
    """One training example of T tokens."""

    input_ids: list[int]
    """T token ids: prompt, reply, end of text."""
    labels: list[int]
    """T labels: the token id where the token counts in the loss, else -100."""
    reply_truncated: bool
    """Whether the reply lost tokens to the length limit."""
    act_labels: list[int] = field(default_factory=list)
    """T labels: the number of the reply's act where it is read, else -100; empty for methods that
    learn no acts from hidden states."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: str, template: str, max_tokens: int
) -> list[int]:
    """Token ids of a prompt in its template, at most `max_tokens` of them.

    The template's own tokens are kept; what is cut is the oldest of the patient's words, because
    the reply answers the newest. Where the tokenizer opens every text with a token (as Llama's
    does), so does the prompt.

    Args:
        tokenizer: of the model that will read the ids.
        prompt: the patient's words.
        template: text with `{prompt}` where the words go.
        max_tokens: longest result, in tokens.
    """
    head, _, tail = template.partition("{prompt}")
    opening = _opening_ids(tokenizer)
    # The head's trailing space belongs to the first word for byte-level BPE, hence one call for all.
    whole = opening + _ids(tokenizer, head + prompt + tail)
    if len(whole) <= max_tokens:
        return whole
    head_ids = opening + _ids(tokenizer, head.removesuffix(" "))
    tail_ids = _ids(tokenizer, tail)
    room = max_tokens - len(head_ids) - len(tail_ids)
    if room <= 0:
        return whole[-max_tokens:]
    words = _ids(tokenizer, " " + prompt if head.endswith(" ") else prompt)
    return head_ids + _from_word_start(tokenizer, words[-room:]) + tail_ids


def encode_reply(tokenizer: PreTrainedTokenizerBase, reply: str) -> list[int]:
    """Token ids of a reply with its leading space and its end-of-text token.

    Args:
        tokenizer: of the model that will be trained; must have an `eos_token_id`.
        reply: the therapist's words.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise TypeError(f"a single end-of-text token id is needed, got {eos!r}")
    return [*_ids(tokenizer, " " + reply), eos]


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    pair: Pair,
    *,
    template: str,
    max_length: int,
    loss_on_prompt: bool,
    acts: Sequence[str] = (),
) -> EncodedPair:
    """One pair as a training example of at most `max_length` tokens.

    The prompt gives way first, down to a quarter of the length; only then is the reply cut at its
    end (and then it has no end-of-text token, because it does not end there).

    Args:
        tokenizer: of the model that will be trained.
        pair: prompt and reference reply.
        template: text with `{prompt}` where the patient's words go.
        max_length: longest result, in tokens.
        loss_on_prompt: whether the prompt's tokens count in the loss.
        acts: that are learnt from hidden states: which one to reply with at the prompt's last
            token, which one the reply was at its own. None of them is read off other pairs.
    """
    reply_ids = encode_reply(tokenizer, pair.reference)
    prompt_room = max(max_length // 4, max_length - len(reply_ids))
    prompt_ids = encode_prompt(tokenizer, pair.prompt, template, prompt_room)
    room = max_length - len(prompt_ids)
    truncated = len(reply_ids) > room
    reply_ids = reply_ids[:room]
    prompt_labels = prompt_ids if loss_on_prompt else [IGNORED_LABEL] * len(prompt_ids)
    # Nothing predicts the first token; a label there would only count in the mean.
    labels = [IGNORED_LABEL, *(prompt_labels + reply_ids)[1:]]
    act_labels: list[int] = []
    if acts:
        act_labels = [IGNORED_LABEL] * len(labels)
        if pair.act in acts:
            act_labels[len(prompt_ids) - 1] = act_labels[-1] = acts.index(pair.act)
    return EncodedPair(
        input_ids=prompt_ids + reply_ids,
        labels=labels,
        reply_truncated=truncated,
        act_labels=act_labels,
    )


def _opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that the tokenizer puts before every text by itself, where there is one."""
    first = tokenizer("a", verbose=False)["input_ids"][0]
    return [int(first)] if first == tokenizer.bos_token_id else []


def _from_word_start(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """The ids from the first that starts a word on, so that their text has the same ids again."""
    for start, token in enumerate(tokenizer.convert_ids_to_tokens(ids[:_LONGEST_WORD])):
        if token.startswith(_WORD_STARTS):
            return ids[start:]
    return ids


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [int(i) for i in ids]
