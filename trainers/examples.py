"""Pairs as training examples, and whether they fit the model they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corpora.act_labels import known_acts
from corpora.dialogue import PairSplits
from search_spaces.errors import one_problem
from search_spaces.spec import ReaderSettings, TrialSpec
from trainers.encoding import EncodedPair, encode_pair
from trainers.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def encode_splits(
    tokenizer: PreTrainedTokenizerBase, pairs: PairSplits, spec: TrialSpec
) -> tuple[list[EncodedPair], list[EncodedPair], int]:
    """Training and validation examples, and how many training replies were cut short.

    Args:
        tokenizer: the model's.
        pairs: the trial's pairs.
        spec: the trial; `prompt_template`, `max_length`, `loss_on` and `packing` are used, and
            whether the method learns acts from hidden states.
    """
    loss_on_prompt = spec.training.loss_on == "all"
    acts = known_acts(pairs.train) if isinstance(spec.method, ReaderSettings) else ()
    train, valid = (
        [
            encode_pair(
                tokenizer,
                pair,
                template=spec.decoding.prompt_template,
                max_length=spec.training.max_length,
                loss_on_prompt=loss_on_prompt,
                acts=acts,
            )
            for pair in part
        ]
        for part in (pairs.train, pairs.valid)
    )
    truncated = sum(example.reply_truncated for example in train)
    return (
        pack(train, spec.training.max_length) if spec.training.packing else train,
        valid,
        truncated,
    )


def pack(examples: Sequence[EncodedPair], max_length: int) -> list[EncodedPair]:
    """Examples one after the other, in their order, as many whole ones to a sequence as fit.

    Args:
        examples: at most `max_length` tokens each.
        max_length: longest sequence, in tokens.
    """
    packed: list[EncodedPair] = []
    for example in examples:
        last = packed[-1] if packed else None
        if last is None or len(last.input_ids) + len(example.input_ids) > max_length:
            packed.append(example)
        else:
            packed[-1] = EncodedPair(
                input_ids=last.input_ids + example.input_ids,
                labels=last.labels + example.labels,
                reply_truncated=last.reply_truncated or example.reply_truncated,
                act_labels=last.act_labels + example.act_labels,
            )
    return packed


def check_length(config: PretrainedConfig, spec: TrialSpec, virtual_tokens: int = 0) -> None:
    """See that a model has positions for the longest example.

    Args:
        config: the model's.
        spec: the trial.
        virtual_tokens: positions that a learned prefix takes.

    Raises:
        ModelError: `max_length` (and the prefix) exceed the model's positions.
    """
    positions = getattr(config, "max_position_embeddings", None)
    needed = spec.training.max_length + virtual_tokens
    if positions is not None and needed > positions:
        raise ModelError(
            one_problem(
                "search space",
                "max_length",
                f"`max_length + virtual tokens <= {positions}` (the positions of {spec.model}) "
                f"must hold with {virtual_tokens} virtual tokens",
                spec.training.max_length,
                str(positions - virtual_tokens),
            )
        )
