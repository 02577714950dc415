"""A tuned model and pairs become replies.

All beam widths of a batch of prompts run in one loop: each prompt is read once, every step is one
forward pass over the rows of all widths, and what has settled leaves the batch. The replies are
those of transformers' `generate` for one prompt at a time, so that they may come from several runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from corpora.dialogue import Pair
from evaluators import beam_cache, chatmgl_protocol, sampling
from evaluators.beam_search import Search, start_search
from evaluators.beams import cached_tokens, start_beams
from evaluators.causal_model import CausalModel
from evaluators.dialogue_acts import predict_acts
from evaluators.errors import EvaluationError
from evaluators.partial import SettledReplies
from evaluators.replies import Reply, reply_to_pair
from evaluators.stopping import stop_if_asked
from search_spaces.errors import one_problem
from search_spaces.spec import DecodingSpec
from trainers.act_tokens import ActTokens, act_token
from trainers.encoding import encode_prompt
from trainers.errors import is_out_of_memory
from trainers.progress import ShouldStop, never
from trainers.tuned import TunedModel

_COMPACT_SHARE = 8
"""Settled rows leave the batch once they are one in this many: each leaving copies the others."""

OnReplies = Callable[[list[Reply]], None]
OnBatchSize = Callable[[int], None]


@dataclass(frozen=True)
class _Prompt:
    """One pair, encoded."""

    number: int
    """Position among the pairs."""
    pair: Pair
    ids: list[int]
    widths: tuple[int, ...]
    """Beam widths at which it has no reply yet, ascending."""


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
    chatmgl = decoding.protocol == "chatmgl"
    if chatmgl:
        pairs = pairs[: chatmgl_protocol.CHATMGL_TEST_PAIRS]
    new_tokens = chatmgl_protocol.CHATMGL_MAX_NEW_TOKENS if chatmgl else decoding.max_new_tokens
    # An act token takes one place more, between prompt and reply.
    room = prompt_room(model, max_length, new_tokens + isinstance(tuned.acts, ActTokens))
    ids = [
        encode_prompt(tuned.tokenizer, pair.prompt, decoding.prompt_template, room)
        for pair in pairs
    ]
    inputs = tuned.tokenizer.batch_decode(ids, skip_special_tokens=True)
    predicted: list[str] | list[None] = [None] * len(pairs)
    if tuned.acts is not None:
        known_acts = tuned.acts
        predicted = predict_acts(model, ids, known_acts, should_stop)
        if isinstance(known_acts, ActTokens):
            begun = [known_acts.known(p.act) for p in pairs] if known_acts.given else predicted
            ids = [[*prompt, known_acts.ids[act]] for prompt, act in zip(ids, begun, strict=True)]
            inputs = [text + act_token(act) for text, act in zip(inputs, begun, strict=True)]
    widths = sorted(set(beams))

    def put_together(number: int, beam: int, text: str) -> Reply:
        reply = reply_to_pair(pairs[number], beam, text, decoding.protocol)
        return replace(reply, model_input=inputs[number], predicted_act=predicted[number])

    replies = {
        (beam, number): reply
        for beam in widths
        for number, pair in enumerate(pairs)
        if (reply := (known or {}).get((beam, pair.pair_id))) is not None
        and reply == put_together(number, beam, reply.reply)
    }
    if replies and on_replies is not None:
        on_replies(list(replies.values()))
    prompts = [
        _Prompt(number, pair, ids[number], missing)
        for number, pair in enumerate(pairs)
        if (missing := tuple(beam for beam in widths if (beam, number) not in replies))
    ]
    with torch.inference_mode():
        if chatmgl:
            settled = _sampled(model, prompts, seed, should_stop)
        elif model.can_batch:
            settled = _batched(model, prompts, decoding, should_stop, on_batch_size)
        else:
            settled = _one_by_one(model, prompts, decoding, should_stop)
        for group in settled:
            texts = tuned.tokenizer.batch_decode(
                [tokens for _, tokens in group], skip_special_tokens=True
            )
            fresh = {
                (beam, number): put_together(number, beam, text)
                for ((beam, number), _), text in zip(group, texts, strict=True)
            }
            replies |= fresh
            if on_replies is not None:
                on_replies(list(fresh.values()))
    return [replies[beam, number] for beam in beams for number in range(len(pairs))]


_Settled = list[tuple[tuple[int, int], list[int]]]
"""Replies' token ids by (beam width, position of the pair)."""


def prompt_room(model: CausalModel, max_length: int, max_new_tokens: int) -> int:
    """Tokens that a prompt may have.

    Args:
        model: its positions limit prompt and reply together.
        max_length: tokens of prompt and reply together, as the trial says.
        max_new_tokens: tokens of the reply.

    Raises:
        EvaluationError: nothing is left for the prompt.
    """
    limit, rule = max_length, "max_length"
    if model.max_positions is not None and model.max_positions < limit:
        limit, rule = model.max_positions, "the model's positions"
        if model.virtual_tokens:
            rule += f" less {model.virtual_tokens} virtual tokens"
    if limit - max_new_tokens < 1:
        message = f"must leave room for a prompt within {rule} ({limit} tokens)"
        raise EvaluationError(one_problem("decoding", "max_new_tokens", message, max_new_tokens))
    return limit - max_new_tokens


def _sampled(
    model: CausalModel, prompts: Sequence[_Prompt], seed: int, should_stop: ShouldStop
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
    prompts: Sequence[_Prompt],
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


def _by_width(prompts: Sequence[_Prompt]) -> Iterator[tuple[int, _Prompt]]:
    """Every prompt at every width that it lacks, the narrowest of all prompts first."""
    for width in sorted({width for prompt in prompts for width in prompt.widths}):
        for prompt in prompts:
            if width in prompt.widths:
                yield width, prompt


def _batched(
    model: CausalModel,
    prompts: Sequence[_Prompt],
    decoding: DecodingSpec,
    should_stop: ShouldStop,
    on_batch_size: OnBatchSize | None,
) -> Iterator[_Settled]:
    """Beam search in batches of prompts of like length, the longest first.

    A batch that does not fit the memory is halved, and so are those after it.
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


def _unsettled(batch: Sequence[_Prompt], settled: Container[tuple[int, int]]) -> Iterator[_Prompt]:
    """What a batch that ran out of memory has left to do; nothing where it came to its end."""
    for prompt in batch:
        widths = tuple(width for width in prompt.widths if (width, prompt.number) not in settled)
        if widths:
            yield replace(prompt, widths=widths)


def _decode(
    model: CausalModel,
    batch: Sequence[_Prompt],
    decoding: DecodingSpec,
    should_stop: ShouldStop,
) -> Iterator[_Settled]:
    """Decode one batch of P prompts, each at the widths that it lacks; R rows, one a beam."""
    device = model.device
    stop_if_asked(should_stop)
    read = model.read([prompt.ids for prompt in batch])
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
    logits = read.logits[owners]
    beams = start_beams(model, read, owners)
    del read

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
