"""Control tokens that name a reply's dialogue act: one for each act, and one for unknown acts.

Source: a token before the text that says what kind of text follows, as in CTRL (Keskar et al. 2019,
section 3); here the kind is the dialogue act of the reply, and the model learns to write it itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from corpora.acts import ACTS, UNKNOWN_ACT
from corpora.dialogue import Pair, PairSplits
from search_spaces.spec import DialogueActSettings, TrialSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKEN_START = "<act:"

ACT_CODE = f"""\
acts = {{t: i for t, i in tokenizer.get_added_vocab().items() if t.startswith("{TOKEN_START}")}}
scores = model(**inputs).logits[0, -1]
act = max(acts, key=lambda token: scores[acts[token]])
ids = inputs["input_ids"]
ids = ids.new_tensor([[*ids[0].tolist(), acts[act]]])
inputs = {{"input_ids": ids, "attention_mask": ids.new_ones(ids.shape)}}
"""
"""The lines of a model card that put the most probable act after the prompt."""

ACT_TEXT = """
Each reply was tuned with a token before it that names its dialogue act (`acts` above lists them). The
example takes the act that the model finds most probable; to give an act yourself, set `act` to its
token instead, such as `act = "<act:question>"` where the model has that one. `<act:unknown>` stands
for acts that the training replies did not have.
"""
"""What a model card says of act tokens."""


@dataclass(frozen=True)
class ActTokens:
    """The acts that a tuned model knows, and which of them its replies begin with."""

    ids: Mapping[str, int]
    """Act to token id; `unknown` stands for every act that the training pairs do not have."""
    given: bool
    """Replies begin with the reference's act; else with the one that the model predicts."""

    def known(self, act: str | None) -> str:
        """The act itself where the model has a token for it, else `unknown`.

        Args:
            act: of a reference; may be absent.
        """
        return act if act in self.ids and act is not None else UNKNOWN_ACT


def uses_acts(spec: TrialSpec) -> bool:
    """Whether the trial's replies begin with an act token.

    Args:
        spec: the trial.
    """
    return isinstance(spec.method, DialogueActSettings) and spec.method.acts != "none"


def act_token(act: str) -> str:
    """The token's text: `<act:question>`.

    Args:
        act: canonical label.
    """
    return f"{TOKEN_START}{act}>"


def label_replies(pairs: PairSplits, acts: Sequence[str]) -> PairSplits:
    """The pairs with each reply's act token before it.

    Args:
        pairs: the trial's.
        acts: that have a token; other replies get the one for unknown acts.
    """

    def labelled(pair: Pair) -> Pair:
        act = pair.act if pair.act is not None and pair.act in acts else UNKNOWN_ACT
        return replace(pair, reference=f"{act_token(act)} {pair.reference}")

    return PairSplits(
        train=tuple(map(labelled, pairs.train)),
        valid=tuple(map(labelled, pairs.valid)),
        test=tuple(map(labelled, pairs.test)),
    )


def act_ids(tokenizer: PreTrainedTokenizerBase, acts: Sequence[str]) -> dict[str, int]:
    """Token id by act, `unknown` last.

    Args:
        tokenizer: that has the act tokens.
        acts: known acts.
    """
    tokens: dict[str, int] = tokenizer.get_vocab()
    return {act: tokens[act_token(act)] for act in (*acts, UNKNOWN_ACT)}


def add_act_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, acts: Sequence[str]
) -> dict[str, int]:
    """Give a model and its tokenizer a token for each act and one for unknown ones.

    A new row begins as the mean of the rows of the words that name the act, so that the same acts
    always begin alike; tied embeddings stay tied. Tokens that are there already keep their rows.

    Args:
        model: changed in place; V rows become at least as many as the tokenizer has tokens.
        tokenizer: changed in place.
        acts: known acts.

    Returns:
        Token id by act, `unknown` last.
    """
    import torch
    from tokenizers import AddedToken

    names = [*acts, UNKNOWN_ACT]
    words = {
        act: tokenizer(" " + ACTS.get(act, act).replace("_", " "), add_special_tokens=False)
        for act in names
    }
    there = set(tokenizer.get_vocab())
    tokenizer.add_tokens(
        # Without `lstrip`, the blank before a reply would be a token of its own.
        [AddedToken(act_token(a), special=True, lstrip=True, normalized=False) for a in names],
        special_tokens=True,
    )
    ids = act_ids(tokenizer, acts)
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    rows = {id(p): p for layer in layers for p in layer.parameters(recurse=False)}
    with torch.no_grad():
        for act in names:
            if act_token(act) not in there:
                for parameter in rows.values():
                    parameter[ids[act]] = parameter[words[act]["input_ids"]].mean(dim=0)
    return ids
