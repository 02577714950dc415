"""Replies of several trials at once: LoRA adapters on one base, their prompts in the same batches.

The files are the whole interface: what is decoded here is kept where each trial's own `evaluate`
looks for it, which then has nothing left to generate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from corpora.dialogue import PairSplits
from evaluators.causal_model import CausalModel
from evaluators.decoding import decode_batches
from evaluators.evaluate import parts_of
from evaluators.partial import PartialReplies
from evaluators.questions import AnswerKey, Questions
from search_spaces.spec import TrialSpec
from trainers.loading import load_model
from trainers.progress import ShouldStop, never
from trainers.row_adapters import RowAdapters, row_adapters
from trainers.tuned import TunedModel

_CPU_PROMPTS = 128
"""Prompts decoded together on a CPU: more are no faster, as `benchmarks/decoding.py` measures."""


@dataclass(frozen=True)
class Member:
    """One trial whose adapter is tuned and whose replies are wanted."""

    folder: Path
    """Of the adapter, in PEFT's format, with its generation config."""
    spec: TrialSpec
    pairs: PairSplits
    partial: Path
    """Where its `evaluate` looks for replies."""
    key: str
    """The key that its `evaluate` is given."""


@dataclass(frozen=True)
class _Part:
    """One part of one member, with its replies so far."""

    member: int
    name: str
    asked: Questions
    file: PartialReplies

    def keep(self, tokens: dict[AnswerKey, list[int]]) -> None:
        self.file.add(self.name, self.asked.answer(tokens))


def decode_together(base: Path, members: Sequence[Member], should_stop: ShouldStop = never) -> None:
    """Decode what members lack and keep it in their partial files.

    Members with the same reply length, length penalty and generation config share batches, as
    many prompts of each as it would decode at once alone (on a CPU, a bounded number in all). In fp32 the replies are those of each
    member alone. A member whose replies our own loop cannot give, or under the ChatMGL protocol, is
    left to its own `evaluate`.

    Args:
        base: folder of the model that all adapters were trained on.
        members: each with a plain LoRA adapter; ranks, scales, targets, pairs and settings may
            differ.
        should_stop: asked at every token.

    Raises:
        ModelError: the base cannot be loaded, or an adapter is no plain LoRA.
        EvaluationError: a reply length leaves no room for a prompt.
        StoppedError: `should_stop` said so; the files hold what had settled.
        MemoryError, RuntimeError: a single prompt does not fit the memory; `is_out_of_memory`
            knows them.
        OSError: a partial file cannot be written.
    """
    ours = [member for member in members if member.spec.decoding.protocol != "chatmgl"]
    if not ours:
        return
    model, tokenizer = load_model(base)
    tuned = TunedModel(model, tokenizer, base, 0, model.num_parameters())
    configs = [GenerationConfig.from_pretrained(member.folder) for member in ours]
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for number, (member, config) in enumerate(zip(ours, configs, strict=True)):
        decoding = member.spec.decoding
        same = (decoding.max_new_tokens, decoding.length_penalty, config.to_json_string())
        groups[same].append(number)
    with (
        ExitStack() as files,
        row_adapters(model, [member.folder for member in ours]) as adapters,
        torch.inference_mode(),
    ):
        for group in groups.values():
            tuned.model.generation_config = configs[group[0]]
            _decode_group(tuned, adapters, {n: ours[n] for n in group}, files, should_stop)


def _decode_group(
    tuned: TunedModel,
    adapters: RowAdapters,
    members: dict[int, Member],
    files: ExitStack,
    should_stop: ShouldStop,
) -> None:
    """Decode members that share batches; the keys are their places among the adapters."""
    model = CausalModel(tuned, adapters)
    if not model.can_batch:
        return
    parts: list[_Part] = []
    at_once: dict[int, int] = {}
    settled: dict[int, PartialReplies] = {}
    for number, member in members.items():
        spec = member.spec
        settled[number] = files.enter_context(closing(PartialReplies(member.partial, member.key)))
        at_once[number] = settled[number].batch_size or spec.decoding.eval_batch_size
        for name, (pairs, beams) in parts_of(spec, member.pairs).items():
            known = settled[number].replies(name)
            asked = Questions(
                tuned, model, pairs, spec.decoding, beams, spec.training.max_length, known
            )
            parts.append(_Part(number, name, asked, settled[number]))
    found = [(place, prompt) for place, part in enumerate(parts) for prompt in part.asked.open()]
    prompts = [
        replace(prompt, number=number, member=parts[place].member)
        for number, (place, prompt) in enumerate(found)
    ]

    def note(prompts_at_once: int) -> None:
        # A larger batch than a member's own says nothing about its own.
        for number, own in at_once.items():
            if prompts_at_once < own:
                settled[number].note_batch_size(prompts_at_once)

    first = next(iter(members.values())).spec.decoding
    shared = sum(at_once.values())
    if model.device.type == "cpu":
        shared = max(max(at_once.values()), min(shared, _CPU_PROMPTS))
    decoding = replace(first, eval_batch_size=shared)
    for group in decode_batches(model, prompts, decoding, should_stop, note):
        of_part: defaultdict[int, dict[AnswerKey, list[int]]] = defaultdict(dict)
        for (beam, number), tokens in group:
            place, prompt = found[number]
            of_part[place][beam, prompt.number] = tokens
        for place, answers in of_part.items():
            parts[place].keep(answers)
