"""Pairs as training examples, and whether they fit the model they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpora.dialogue import PairSplits
from search_spaces.errors import one_problem
from search_spaces.spec import TrialSpec
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
        spec: the trial; `prompt_template`, `max_length` and `loss_on` are used.
    """
    loss_on_prompt = spec.training.loss_on == "all"
    train, valid = (
        [
            encode_pair(
                tokenizer,
                pair,
                template=spec.decoding.prompt_template,
                max_length=spec.training.max_length,
                loss_on_prompt=loss_on_prompt,
            )
            for pair in part
        ]
        for part in (pairs.train, pairs.valid)
    )
    return train, valid, sum(example.reply_truncated for example in train)


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
