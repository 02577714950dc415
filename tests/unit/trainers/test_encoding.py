from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.dialogue import Pair
from search_spaces.spec import DecodingSpec
from tests.tiny import TEXTS, make_tiny_tokenizer
from trainers.encoding import IGNORED_LABEL, EncodedPair, encode_pair, encode_prompt, encode_reply

TEMPLATE = DecodingSpec().prompt_template
TOKENIZER: Any = make_tiny_tokenizer()
OPENING: Any = make_tiny_tokenizer(opening=True)
LONG = " ".join(TEXTS * 3)

words = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=7)
sentences = st.lists(words, min_size=1, max_size=60).map(" ".join)
tokenizers = st.sampled_from([TOKENIZER, OPENING])


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def encoded(
    prompt: str,
    reply: str,
    max_length: int,
    *,
    tokenizer: Any = TOKENIZER,
    template: str = TEMPLATE,
    loss_on_prompt: bool = False,
) -> EncodedPair:
    return encode_pair(
        tokenizer,
        Pair("s:1", "s", prompt, reply),
        template=template,
        max_length=max_length,
        loss_on_prompt=loss_on_prompt,
    )


@settings(deadline=None)
@given(sentences, sentences, st.integers(16, 200), tokenizers, st.booleans())
def test_an_example_keeps_its_bounds(
    prompt: str, reply: str, max_length: int, tokenizer: Any, on_prompt: bool
) -> None:
    example = encoded(prompt, reply, max_length, tokenizer=tokenizer, loss_on_prompt=on_prompt)
    assert len(example.input_ids) == len(example.labels) <= max_length
    ends = example.input_ids[-1] == tokenizer.eos_token_id
    assert ends is not example.reply_truncated
    whole = encode_reply(tokenizer, reply)
    room = max(max_length // 4, max_length - len(whole))
    asked = encode_prompt(tokenizer, prompt, TEMPLATE, room)
    kept = whole[: max_length - len(asked)]
    assert example.input_ids == asked + kept
    on_asked = asked[1:] if on_prompt else [IGNORED_LABEL] * (len(asked) - 1)
    assert example.labels == [IGNORED_LABEL, *on_asked, *kept]
    assert (len(kept) < len(whole)) is example.reply_truncated


@settings(deadline=None)
@given(sentences, st.integers(1, 200), tokenizers)
def test_a_prompt_keeps_its_bound(prompt: str, max_tokens: int, tokenizer: Any) -> None:
    assert 0 < len(encode_prompt(tokenizer, prompt, TEMPLATE, max_tokens)) <= max_tokens


@pytest.mark.parametrize("tokenizer", [TOKENIZER, OPENING])
def test_generation_continues_what_training_saw(tokenizer: Any) -> None:
    prompt, reply = "I do not sleep.", "Since when?"
    asked = encode_prompt(tokenizer, prompt, TEMPLATE, 128 - 64)
    example = encoded(prompt, reply, 128, tokenizer=tokenizer)
    assert example.input_ids[: len(asked)] == asked
    assert example.input_ids[len(asked) :] == encode_reply(tokenizer, reply)
    assert example.labels[: len(asked)] == [IGNORED_LABEL] * len(asked)


def test_a_prompt_reads_as_a_user_would_type_it() -> None:
    """The model card's example tokenises template and words in one call."""
    text = TEMPLATE.replace("{prompt}", "I do not sleep.")
    for tokenizer in (TOKENIZER, OPENING):
        typed = tokenizer(text)["input_ids"]
        assert encode_prompt(tokenizer, "I do not sleep.", TEMPLATE, 64) == typed
    assert OPENING(text)["input_ids"][0] == OPENING.bos_token_id


@settings(deadline=None)
@given(st.lists(st.sampled_from(LONG.split()), min_size=1, max_size=80).map(" ".join))
def test_a_cut_prompt_is_shorter_text(prompt: str) -> None:
    """What is left reads as template and newest words, and has the same tokens again."""
    ids = encode_prompt(TOKENIZER, prompt, TEMPLATE, 40)
    text = TOKENIZER.decode(ids)
    head, tail = TEMPLATE.split("{prompt}")
    assert text.startswith(head)
    assert text.endswith(tail)
    kept = text.removeprefix(head).removesuffix(tail)
    assert (" " + prompt).endswith(" " + kept)
    assert ids_of(text) == ids


@pytest.mark.parametrize(
    "template", ["{prompt}", "Q:{prompt}\nA:", "Q:\n{prompt}\nA:", "Q:  {prompt} A:", "{prompt} ="]
)
def test_every_template_is_kept(template: str) -> None:
    head, tail = template.split("{prompt}")
    ids = encode_prompt(TOKENIZER, LONG, template, 30)
    text = TOKENIZER.decode(ids)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert 22 < len(ids) <= 30
    assert ids_of(text) == ids


def test_a_cut_prompt_keeps_its_opening_token() -> None:
    ids = encode_prompt(OPENING, LONG, TEMPLATE, 40)
    assert len(ids) <= 40
    assert ids[0] == OPENING.bos_token_id
    assert OPENING.decode(ids[1:]).startswith("Patient: ")


def test_a_text_without_spaces_is_cut_where_the_length_says() -> None:
    assert len(encode_prompt(TOKENIZER, "x" * 500, TEMPLATE, 40)) == 40


def test_a_template_longer_than_its_room_keeps_its_end() -> None:
    whole = ids_of(TEMPLATE.replace("{prompt}", "Hello"))
    assert encode_prompt(TOKENIZER, "Hello", TEMPLATE, 3) == whole[-3:]


def test_the_prompt_gives_way_before_the_reply() -> None:
    reply = TEXTS[1]
    example = encoded(LONG, reply, 64)
    assert not example.reply_truncated
    assert example.input_ids[-len(encode_reply(TOKENIZER, reply)) :] == encode_reply(
        TOKENIZER, reply
    )
    cut = encoded(LONG, LONG, 64)
    assert cut.reply_truncated
    assert cut.labels.count(IGNORED_LABEL) <= 16
    assert len(cut.input_ids) >= 64 - 8


def test_a_reply_needs_an_end() -> None:
    tokenizer: Any = make_tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(TypeError, match="end-of-text"):
        encode_reply(tokenizer, "Since when?")
