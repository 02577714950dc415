"""A tuned model and pairs become replies.

All beam widths of a batch of prompts run in one loop: each prompt is read once, every step is one
forward pass over the rows of all widths, and what has settled leaves the batch. The replies are
those of transformers' `generate` for one prompt at a time, so that they may come from several runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from corpora.dialogue import Pair
from evaluators import beam_cache, chatmgl_protocol, sampling
from evaluators.beam_search import Search, start_search
from evaluators.beams import cached_tokens, start_beams
from evaluators.causal_model import CausalModel
from evaluators.partial import SettledReplies
from evaluators.questions import AnswerKey, Prompt, Questions
from evaluators.replies import Reply
from evaluators.stopping import stop_if_asked
from search_spaces.spec import DecodingSpec
from trainers.errors import is_out_of_memory
from trainers.progress import ShouldStop, never
from trainers.tuned import TunedModel

_COMPACT_SHARE = 8
"""Settled rows leave the batch once they are one in this many: each leaving copies the others."""

OnReplies = Callable[[list[Reply]], None]
OnBatchSize = Callable[[int], None]


def generate(
    tuned: TunedModel,
    pairs: Sequence[Pair],
    decoding: DecodingSpec,
    beams: Sequence[int],
    max_length: int,
    seed: int,
    on_replies: OnReplies | None = None,
    *,
    known: SettledReplies | None = None,
    should_stop: ShouldStop = never,
    on_batch_size: OnBatchSize | None = None,
) -> list[Reply]:
    """Replies to every pair at every beam width, in the order of (beam, pair).

    Args:
        tuned: the model; its generation config is left as it is.
        pairs: prompts and references; `chatmgl` takes the first 60.
        decoding: protocol, lengths, template and batch size. Under `chatmgl` the protocol's own
            reply length and length penalty hold instead of `max_new_tokens`, `length_penalty`.
        beams: beam widths.
        max_length: tokens of prompt and reply together.
        seed: of the draws; read by `chatmgl` only.
        on_replies: called with replies as they settle, in no particular order, each once; first
            with those that were known.
        known: replies from before; those that answer the same question, given to the model in the
            same words, are taken and not generated again.
        should_stop: asked at every token.
        on_batch_size: called with the number of prompts that are decoded together from now on,
            where more ran out of memory.

    Raises:
        EvaluationError: the reply length leaves no room for a prompt.
        StoppedError: `should_stop` said so.
        MemoryError, RuntimeError: a single prompt does not fit the memory of the host, or of the
            GPU (`torch.OutOfMemoryError`); `is_out_of_memory` knows them.
    """
    model = CausalModel(tuned)
    asked = Questions(tuned, model, pairs, decoding, beams, max_length, known, should_stop)
    if asked.replies and on_replies is not None:
        on_replies(list(asked.replies.values()))
    prompts = list(asked.open())
    with torch.inference_mode():
        if decoding.protocol == "chatmgl":
            settled = _sampled(model, prompts, seed, should_stop)
        elif model.can_batch:
            settled = decode_batches(model, prompts, decoding, should_stop, on_batch_size)
        else:
            settled = _one_by_one(model, prompts, decoding, should_stop)
        for group in settled:
            fresh = asked.answer(dict(group))
            if on_replies is not None:
                on_replies(fresh)
    return asked.in_order()


_Settled = list[tuple[AnswerKey, list[int]]]
"""Replies' token ids by beam width and number of the prompt."""


def _sampled(
    model: CausalModel, prompts: Sequence[Prompt], seed: int, should_stop: ShouldStop
) -> Iterator[_Settled]:
    """Draws under ChatMGL's protocol; the caller's random state is left as it was."""
    devices = [model.device] if model.device.type == "cuda" else []
    for width, prompt in _by_width(prompts):
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(sampling.sample_seed(seed, width, prompt.pair.pair_id))
            ids = sampling.generate_one(
                model,
                prompt.ids,
                width,
                max_new_tokens=chatmgl_protocol.CHATMGL_MAX_NEW_TOKENS,
                length_penalty=chatmgl_protocol.CHATMGL_LENGTH_PENALTY,
                sample=True,
                should_stop=should_stop,
            )
        yield [((width, prompt.number), ids)]


def _one_by_one(
    model: CausalModel,
    prompts: Sequence[Prompt],
    decoding: DecodingSpec,
    should_stop: ShouldStop,
) -> Iterator[_Settled]:
    """Beam search by transformers itself, for models that our own loop does not cover."""
    for width, prompt in _by_width(prompts):
        ids = sampling.generate_one(
            model,
            prompt.ids,
            width,
            max_new_tokens=decoding.max_new_tokens,
            length_penalty=decoding.length_penalty,
            sample=False,
            should_stop=should_stop,
        )
        yield [((width, prompt.number), ids)]


def _by_width(prompts: Sequence[Prompt]) -> Iterator[tuple[int, Prompt]]:
    """Every prompt at every width that it lacks, the narrowest of all prompts first."""
    for width in sorted({width for prompt in prompts for width in prompt.widths}):
        for prompt in prompts:
            if width in prompt.widths:
                yield width, prompt


def decode_batches(
    model: CausalModel,
    prompts: Sequence[Prompt],
    decoding: DecodingSpec,
    should_stop: ShouldStop,
    on_batch_size: OnBatchSize | None = None,
) -> Iterator[_Settled]:
    """Beam search in batches of prompts of like length, the longest first.

    A batch that does not fit the memory is halved, and so are those after it.

    Args:
        model: what reads the prompts, each through its member's adapter where it has several.
        prompts: what to decode; no two have the same number.
        decoding: reply length, length penalty and batch size.
        should_stop: asked at every token.
        on_batch_size: called with the number of prompts that are decoded together from now on,
            where more ran out of memory.

    Yields:
        Replies as they settle.

    Raises:
        StoppedError: `should_stop` said so.
        MemoryError, RuntimeError: a single prompt does not fit the memory.
    """
    waiting = sorted(prompts, key=lambda prompt: -len(prompt.ids))
    at_most = decoding.eval_batch_size
    token_bytes = beam_cache.bytes_per_token(model.config, model.dtype)
    while waiting:
        longest = len(waiting[0].ids) + model.virtual_tokens
        fits = beam_cache.bytes_for_batch(model.device) // token_bytes
        tokens = accumulate(
            cached_tokens(model, longest, prompt.widths, decoding.max_new_tokens)
            for prompt in waiting[:at_most]
        )
        batch = waiting[: max(1, sum(so_far <= fits for so_far in tokens))]
        settled: set[tuple[int, int]] = set()
        out_of_memory = False
        try:
            for group in _decode(model, batch, decoding, should_stop):
                settled.update(key for key, _ in group)
                yield group
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:
            # Outside the handler: the exception held the failed batch's tensors.
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
            at_most = max(1, len(batch) // 2)
            if on_batch_size is not None:
                on_batch_size(at_most)
        waiting = [*_unsettled(batch, settled), *waiting[len(batch) :]]


def _unsettled(batch: Sequence[Prompt], settled: Container[tuple[int, int]]) -> Iterator[Prompt]:
    """What a batch that ran out of memory has left to do; nothing where it came to its end."""
    for prompt in batch:
        widths = tuple(width for width in prompt.widths if (width, prompt.number) not in settled)
        if widths:
            yield replace(prompt, widths=widths)


def _decode(
    model: CausalModel,
    batch: Sequence[Prompt],
    decoding: DecodingSpec,
    should_stop: ShouldStop,
) -> Iterator[_Settled]:
    """Decode one batch of P prompts, each at the widths that it lacks; R rows, one a beam."""
    device = model.device
    stop_if_asked(should_stop)
    # Rows stand by width, then prompt, then beam; greedy rows first, which never change places.
    widths = sorted({width for prompt in batch for width in prompt.widths})
    members = [[prompt for prompt in batch if width in prompt.widths] for width in widths]
    reported = [[False] * len(lacking) for lacking in members]
    searches = [
        start_search(
            len(lacking),
            width,
            max_new_tokens=decoding.max_new_tokens,
            eos_ids=model.eos_ids,
            length_penalty=decoding.length_penalty,
            device=device,
        )
        for width, lacking in zip(widths, members, strict=True)
    ]
    places = [
        place
        for width in widths
        for place, prompt in enumerate(batch)
        if width in prompt.widths
        for _ in range(width)
    ]
    owners = torch.tensor(places, device=device)
    beams, logits = start_beams(
        model, [prompt.ids for prompt in batch], [prompt.member for prompt in batch], owners
    )

    while True:
        tokens, parents = _advance(searches, logits)
        sizes = [len(search.done) for search in searches]
        done = _split(torch.cat([search.done for search in searches]).tolist(), sizes)
        settled: _Settled = []
        for search, prompts, told, flags in zip(searches, members, reported, done, strict=True):
            for place, flag in enumerate(flags):
                if flag and not told[place]:
                    told[place] = True
                    settled.append(((search.width, prompts[place].number), search.reply(place)))
        if settled:
            yield settled
        open_rows = sum(
            s.width * flags.count(False) for s, flags in zip(searches, done, strict=True)
        )
        if not open_rows:
            return
        greedy_rows = sum(len(s.done) for s in searches if s.width == 1)
        beams.follow(parents, greedy_rows)
        if len(tokens) - open_rows >= max(1, len(tokens) // _COMPACT_SHARE):
            stay = torch.cat([(~s.done).repeat_interleave(s.width) for s in searches]).nonzero()[
                :, 0
            ]
            beams.keep(stay)
            tokens = tokens[stay]
            for number, (search, flags) in enumerate(zip(searches, done, strict=True)):
                search.keep((~search.done).nonzero()[:, 0])
                members[number] = [
                    p for p, flag in zip(members[number], flags, strict=True) if not flag
                ]
                reported[number] = [False] * len(members[number])
        stop_if_asked(should_stop)
        logits = beams.step(tokens)


def _advance(searches: Sequence[Search], logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Next tokens, int (R,), and the rows they continue, int (R,), over all searches."""
    tokens, parents, first = [], [], 0
    for search in searches:
        count = search.width * len(search.done)
        if not count:
            continue
        chosen, continued = search.advance(logits[first : first + count])
        tokens.append(chosen)
        parents.append(continued + first)
        first += count
    return torch.cat(tokens), torch.cat(parents)


def _split(flags: list[bool], sizes: Sequence[int]) -> list[list[bool]]:
    """Flags of all searches as one list a search; one copy from the GPU serves them all."""
    ends = list(accumulate(sizes))
    return [flags[end - size : end] for end, size in zip(ends, sizes, strict=True)]
