"""From a grid's trials and what they came to, to the operations that they cannot do without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.sweep.data import Lengths
from benchmarks.sweep.operations import (
    Adapter,
    Operations,
    Shape,
    count_decoding,
    count_forward,
    count_scoring,
    count_training,
)
from benchmarks.sweep.outcome import TrialOutcome
from search_spaces.spec import BaseSettings, DeltaSettings, SftSettings, TrialSpec
from trainers.delta import virtual_tokens


@dataclass(frozen=True)
class Reader:
    """A model as what it takes to read a text with it."""

    shape: Shape
    tokenizer: PreTrainedTokenizerBase

    def tokens(self, text: str) -> int:
        """Tokens of a text, special ones included."""
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return len(ids)


def read_gpt2(folder: Path) -> Reader:
    """A GPT-2 from its folder."""
    config: Any = AutoConfig.from_pretrained(folder)
    inner = config.n_inner or 4 * config.n_embd
    shape = Shape(config.n_layer, config.n_embd, inner, config.vocab_size)
    return Reader(shape, AutoTokenizer.from_pretrained(folder))


def read_encoder(folder: Path, layer: int) -> Reader:
    """A BERT from its folder, up to a layer."""
    config: Any = AutoConfig.from_pretrained(folder)
    shape = Shape(layer, config.hidden_size, config.intermediate_size)
    return Reader(shape, AutoTokenizer.from_pretrained(folder))


def count_sweep(
    specs: Mapping[str, TrialSpec],
    lengths: Mapping[str, Lengths],
    outcomes: Mapping[str, TrialOutcome],
    model: Reader,
    encoder: Reader,
) -> Operations:
    """Operations of all trials.

    Args:
        specs: by trial.
        lengths: of the data of each trial.
        outcomes: of each trial.
        model: that all trials tune.
        encoder: BERTScore's.
    """
    counted = (
        count_trial(spec, lengths[name], outcomes[name], model, encoder)
        for name, spec in specs.items()
    )
    return reduce(Operations.__add__, counted, Operations())


def count_trial(
    spec: TrialSpec, lengths: Lengths, outcome: TrialOutcome, model: Reader, encoder: Reader
) -> Operations:
    """Operations of one trial.

    Args:
        spec: the trial.
        lengths: of its data.
        outcome: its replies are read.
        model: that it tunes.
        encoder: BERTScore's.
    """
    if isinstance(spec.method, BaseSettings):
        training = sum(
            count_forward(model.shape, tokens, tokens * (tokens + 1) // 2, scored)
            for tokens, scored in lengths.valid
        )
    else:
        training = count_training(
            model.shape,
            lengths.train,
            lengths.valid,
            spec.training.epochs,
            _adapter(spec, model.shape),
        )
    replies: dict[tuple[str, str], list[tuple[int, int]]] = {key: [] for key in lengths.prompts}
    for (part, width, pair), text in outcome.replies.items():
        # Text that is read again may have other tokens than were generated: a few more or less.
        tokens = min(model.tokens(text) + 1, spec.decoding.max_new_tokens)
        replies[part, pair].append((width, tokens))
    decoding = sum(
        count_decoding(model.shape, prompt, replies[key]) for key, prompt in lengths.prompts.items()
    )
    texts = {*outcome.replies.values(), *lengths.references.values()}
    scoring = count_scoring(encoder.shape, (encoder.tokens(text) for text in texts))
    return Operations(training, decoding, scoring)


def _adapter(spec: TrialSpec, shape: Shape) -> Adapter | None:
    match spec.method:
        case SftSettings():
            return None
        case DeltaSettings(peft_type="lora", rank=rank):
            return lora_adapter(shape, rank)
        case DeltaSettings(peft_type="prefix"):
            return Adapter(attended_positions=virtual_tokens(spec.method))
        case DeltaSettings():
            # What scales or shifts activations is next to nothing.
            return Adapter(read_tokens=virtual_tokens(spec.method))
        case _:
            raise ValueError(f"operations of {spec.method.kind} are not counted")


def lora_adapter(shape: Shape, rank: int) -> Adapter:
    """LoRA where PEFT puts it in a GPT-2: beside the projection to queries, keys and values.

    Args:
        shape: the model's.
        rank: of the LoRA.
    """
    return Adapter(weights=shape.layers * rank * (shape.width + 3 * shape.width))
