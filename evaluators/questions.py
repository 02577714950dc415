"""What a model is asked about the pairs of one part of a trial, and which answers are still open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from corpora.dialogue import Pair
from evaluators import chatmgl_protocol
from evaluators.causal_model import CausalModel
from evaluators.dialogue_acts import predict_acts
from evaluators.errors import EvaluationError
from evaluators.partial import SettledReplies
from evaluators.replies import Reply, reply_to_pair
from search_spaces.errors import one_problem
from search_spaces.spec import DecodingSpec
from trainers.act_tokens import ActTokens, act_token
from trainers.encoding import encode_prompt
from trainers.progress import ShouldStop, never
from trainers.tuned import TunedModel

AnswerKey = tuple[int, int]
"""Beam width, and position of the pair."""


@dataclass(frozen=True)
class Prompt:
    """One pair, encoded."""

    number: int
    """Position among the pairs."""
    pair: Pair
    ids: list[int]
    widths: tuple[int, ...]
    """Beam widths at which it has no reply yet, ascending."""
    member: int = 0
    """Whose adapter reads it, where several trials' prompts are decoded together."""


class Questions:
    """Prompts in the words that a model is given, and the replies that are known.

    Args:
        tuned: the model.
        model: the same model, as it is decoded.
        pairs: prompts and references; `chatmgl` takes the first 60.
        decoding: protocol, lengths and template.
        beams: beam widths.
        max_length: tokens of prompt and reply together.
        known: replies from before; those that answer the same question, given to the model in the
            same words, are taken.
        should_stop: asked before each prompt whose act is predicted.

    Raises:
        EvaluationError: the reply length leaves no room for a prompt.
        StoppedError: `should_stop` said so.
    """

    def __init__(
        self,
        tuned: TunedModel,
        model: CausalModel,
        pairs: Sequence[Pair],
        decoding: DecodingSpec,
        beams: Sequence[int],
        max_length: int,
        known: SettledReplies | None = None,
        should_stop: ShouldStop = never,
    ) -> None:
        chatmgl = decoding.protocol == "chatmgl"
        new_tokens = chatmgl_protocol.CHATMGL_MAX_NEW_TOKENS if chatmgl else decoding.max_new_tokens
        self.pairs = pairs[: chatmgl_protocol.CHATMGL_TEST_PAIRS] if chatmgl else pairs
        self._tuned, self._decoding, self._beams = tuned, decoding, tuple(beams)
        # An act token takes one place more, between prompt and reply.
        room = prompt_room(model, max_length, new_tokens + isinstance(tuned.acts, ActTokens))
        ids = [
            encode_prompt(tuned.tokenizer, pair.prompt, decoding.prompt_template, room)
            for pair in self.pairs
        ]
        inputs = tuned.tokenizer.batch_decode(ids, skip_special_tokens=True)
        predicted: list[str] | list[None] = [None] * len(self.pairs)
        if tuned.acts is not None:
            acts = tuned.acts
            predicted = predict_acts(model, ids, acts, should_stop)
            if isinstance(acts, ActTokens):
                begun = [acts.known(p.act) for p in self.pairs] if acts.given else predicted
                ids = [[*prompt, acts.ids[act]] for prompt, act in zip(ids, begun, strict=True)]
                inputs = [text + act_token(act) for text, act in zip(inputs, begun, strict=True)]
        self._ids, self._inputs, self._predicted = ids, inputs, predicted
        self.replies: dict[AnswerKey, Reply] = {
            (beam, number): reply
            for beam in sorted(set(beams))
            for number, pair in enumerate(self.pairs)
            if (reply := (known or {}).get((beam, pair.pair_id))) is not None
            and reply == self._reply(number, beam, reply.reply)
        }
        """What is known, by beam width and position of the pair."""

    def open(self) -> Iterator[Prompt]:
        """The prompts that lack a reply at some width."""
        for number, pair in enumerate(self.pairs):
            missing = [b for b in sorted(set(self._beams)) if (b, number) not in self.replies]
            if missing:
                yield Prompt(number, pair, self._ids[number], tuple(missing))

    def answer(self, tokens: Mapping[AnswerKey, Sequence[int]]) -> list[Reply]:
        """Replies from token ids; known from now on.

        Args:
            tokens: of each reply, by beam width and position of the pair.
        """
        texts = self._tuned.tokenizer.batch_decode(
            [list(each) for each in tokens.values()], skip_special_tokens=True
        )
        fresh = {
            (beam, number): self._reply(number, beam, text)
            for (beam, number), text in zip(tokens, texts, strict=True)
        }
        self.replies |= fresh
        return list(fresh.values())

    def in_order(self) -> list[Reply]:
        """The replies to all pairs, once all are known, in the order of (beam, pair)."""
        numbers = range(len(self.pairs))
        return [self.replies[beam, number] for beam in self._beams for number in numbers]

    def _reply(self, number: int, beam: int, text: str) -> Reply:
        reply = reply_to_pair(self.pairs[number], beam, text, self._decoding.protocol)
        return replace(
            reply, model_input=self._inputs[number], predicted_act=self._predicted[number]
        )


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
