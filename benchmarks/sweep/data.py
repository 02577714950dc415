"""A trial's pairs as prompt-completion data, in the very tokens that our own trainers read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from corpora.dialogue import Pair, PairSplits
from search_spaces.spec import TrialSpec
from trainers.encoding import IGNORED_LABEL, encode_pair, encode_prompt


@dataclass(frozen=True)
class Lengths:
    """Tokens of what one trial reads."""

    train: tuple[tuple[int, int], ...]
    """Of each training example: all tokens, and those that count in the loss."""
    valid: tuple[tuple[int, int], ...]
    """Of each validation example, likewise."""
    prompts: dict[tuple[str, str], int]
    """Of each prompt that is replied to, by part and pair."""
    references: dict[tuple[str, str], str]
    """The text that each of those replies is scored against."""


def write_data(
    pairs: PairSplits, tokenizer: PreTrainedTokenizerBase, spec: TrialSpec, folder: Path
) -> Lengths:
    """Write `train`, `valid`, `valid_prompts` and `test_prompts`, each a JSON list.

    Prompts stand in their template, cut as our trainers and our decoding cut them: whoever joins
    prompt, completion and end of text, and takes the first `max_length` tokens, has our examples.

    Args:
        pairs: the trial's.
        tokenizer: the model's.
        spec: the trial; template and lengths are used.
        folder: where the files go.

    Raises:
        ValueError: a text has other tokens than our trainers would read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lengths = {}
    for part, some in (("train", pairs.train), ("valid", pairs.valid)):
        rows, lengths[part] = _examples(some, tokenizer, spec)
        _write(folder / f"{part}.json", rows)
    prompts: dict[tuple[str, str], int] = {}
    references: dict[tuple[str, str], str] = {}
    for part, some in (("valid", pairs.valid), ("test", pairs.test)):
        rows = []
        for pair in some:
            room = spec.training.max_length - spec.decoding.max_new_tokens
            ids = encode_prompt(tokenizer, pair.prompt, spec.decoding.prompt_template, room)
            prompts[part, pair.pair_id] = len(ids)
            references[part, pair.pair_id] = pair.reference
            rows.append(
                {
                    "pair_id": pair.pair_id,
                    "prompt": _text(tokenizer, ids),
                    "completion": " " + pair.reference,
                }
            )
        _write(folder / f"{part}_prompts.json", rows)
    return Lengths(lengths["train"], lengths["valid"], prompts, references)


def _examples(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, spec: TrialSpec
) -> tuple[list[dict[str, str]], tuple[tuple[int, int], ...]]:
    rows, lengths = [], []
    for pair in pairs:
        example = encode_pair(
            tokenizer,
            pair,
            template=spec.decoding.prompt_template,
            max_length=spec.training.max_length,
            loss_on_prompt=False,
        )
        counted = sum(label != IGNORED_LABEL for label in example.labels)
        prompt = _text(tokenizer, example.input_ids[: len(example.labels) - counted])
        completion = " " + pair.reference
        joined = tokenizer(f"{prompt}{completion}{tokenizer.eos_token}", verbose=False)["input_ids"]
        if joined[: spec.training.max_length] != example.input_ids:
            raise ValueError(f"prompt and reply of {pair.pair_id} have other tokens when joined")
        rows.append({"prompt": prompt, "completion": completion})
        lengths.append((len(example.input_ids), counted))
    return rows, tuple(lengths)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of the ids.

    Raises:
        ValueError: the text has other ids.
    """
    text = tokenizer.decode(list(ids))
    if tokenizer(text, verbose=False)["input_ids"] != list(ids):
        raise ValueError(f"a prompt that was cut has other tokens when read again: {text!r}")
    return str(text)


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text(json.dumps(rows), encoding="utf-8")
