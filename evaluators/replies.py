"""What a tuned model answered to one pair."""

from __future__ import annotations

from dataclasses import dataclass

from corpora.dialogue import Pair
from search_spaces.spec import Protocol


@dataclass(frozen=True)
class Reply:
    """One generated reply and everything that is needed to score it."""

    pair_id: str
    beam: int
    """Beam width it was generated with."""
    prompt: str
    """The patient's words, without the template."""
    reference: str
    """The therapist's words in the corpus."""
    reply: str
    """The model's words: no prompt, no special tokens, no blanks around them."""
    act: str | None = None
    """Dialogue act of the reference."""
    scored: str | None = None
    """The text that metrics see where it is not the reply alone: ChatMGL scored prompt and reply."""
    model_input: str | None = None
    """What the model was given: the prompt in its template, its oldest words cut where it is long."""

    predicted_act: str | None = None
    """The act that the model predicted, where it predicts acts; its reply follows that one or,
    where acts are given, the reference's."""

    @property
    def scored_text(self) -> str:
        """The text that metrics see."""
        return self.reply if self.scored is None else self.scored


def reply_to_pair(pair: Pair, beam: int, text: str, protocol: Protocol) -> Reply:
    """The reply `text` to `pair`, with the text that the protocol scores.

    Args:
        pair: what was answered.
        beam: beam width.
        text: decoded tokens, prompt excluded.
        protocol: `chatmgl` puts the prompt in front of the scored text, as its authors did.
    """
    text = text.strip()
    scored = f"{pair.prompt} {text}".strip() if protocol == "chatmgl" else None
    return Reply(pair.pair_id, beam, pair.prompt, pair.reference, text, pair.act, scored)
