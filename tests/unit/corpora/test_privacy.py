"""The gate itself: what each setting lets through, of texts and of messages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import names, privacy
from corpora.privacy import (
    describe,
    find_identifiers,
    gate_mark,
    guard,
    is_dropped,
    privacy_of,
    redact,
    strictest,
)
from search_spaces.spec import Privacy

SETTINGS: tuple[Privacy, ...] = get_args(Privacy)
TOLD = "Call 555-123-4567 or mail a@b.co,\nsays she.\nI live at 42 Maple Drive."


@pytest.fixture(autouse=True)
def no_recogniser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever this machine has, and nothing remembered from another test."""
    monkeypatch.setattr(names, "_MODELS", ())
    yield
    names.name_recogniser.cache_clear()
    privacy._find.cache_clear()


def test_kinds_are_counted() -> None:
    assert find_identifiers("a@b.co, c@d.co, 555-1234") == {"email": 2, "phone": 1}


@pytest.mark.parametrize(
    ("setting", "passed"),
    [
        ("off", TOLD),
        ("redact", "Call [PHONE] or mail [EMAIL],\nsays she.\nI live at [ADDRESS]."),
        (
            "drop",
            "[line left out: it holds phone, email]\nsays she.\n[line left out: it holds address]",
        ),
    ],
)
def test_each_setting_lets_through(setting: Privacy, passed: str) -> None:
    assert guard(TOLD, setting) == passed
    assert guard("nothing here", setting) == "nothing here"


@given(st.text(alphabet="ab1@.:/-+() 5w\n", max_size=60))
def test_redacted_text_differs_where_something_was_found(text: str) -> None:
    redacted = redact(text)
    assert (redacted == text) == (not find_identifiers(text))
    assert guard(text, "redact") == redacted
    assert is_dropped([text], "drop") == bool(find_identifiers(text))


def test_only_drop_drops() -> None:
    assert [is_dropped(["fine", "a@b.co"], setting) for setting in SETTINGS] == [
        setting == "drop" for setting in SETTINGS
    ]
    assert not is_dropped(["fine"], "drop")


@pytest.mark.parametrize(
    ("spec", "setting"),
    [
        ({"corpus": {"privacy": "drop"}}, "drop"),
        ({"corpus": {"privacy": "off"}}, "off"),
        ({"corpus": {"privacy": "everything"}}, "redact"),
        ({"corpus": {"corpus": "sample"}}, "redact"),
        ({"corpus": None}, "redact"),
        ({}, "redact"),
    ],
)
def test_a_setting_that_is_not_known_redacts(spec: dict[str, Any], setting: Privacy) -> None:
    assert privacy_of(spec) == setting


def test_the_strictest_setting_holds() -> None:
    assert strictest(["off", "redact", "off"]) == "redact"
    assert strictest(["off", "drop", "redact"]) == "drop"
    assert strictest(["off"]) == "off"
    assert strictest([]) == "redact"


def test_each_setting_says_what_it_does() -> None:
    assert len({describe(setting) for setting in SETTINGS}) == len(SETTINGS)
    assert "off" in describe("off")
    assert "names are not looked for" in describe("redact")


@dataclass
class FakePipeline:
    """Takes capitalised words for people."""

    meta = {"version": "1.0"}  # noqa: RUF012

    def __call__(self, text: str) -> Any:
        assert len(text) <= names._PIECE_CHARACTERS
        entities = []
        position = 0
        for word in text.split(" "):
            if word.istitle():
                end = position + len(word)
                entities.append(SimpleNamespace(start_char=position, end_char=end, label_="PERSON"))
                entities.append(SimpleNamespace(start_char=position, end_char=end, label_="ORG"))
            position += len(word) + 1
        return SimpleNamespace(ents=entities)


@pytest.fixture
def recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("spacy")
    fake.load = lambda name, exclude: FakePipeline()
    fake.__spec__ = SimpleNamespace(name="spacy")
    model: Any = ModuleType("fake_model")
    model.__spec__ = SimpleNamespace(name="fake_model")
    monkeypatch.setitem(sys.modules, "spacy", fake)
    monkeypatch.setitem(sys.modules, "fake_model", model)
    monkeypatch.setattr(names, "_MODELS", ("other_model_not_here", "fake_model"))
    names.name_recogniser.cache_clear()
    privacy._find.cache_clear()


@pytest.mark.usefixtures("recogniser")
def test_names_go_where_a_recogniser_is_installed() -> None:
    assert redact("then Jane said a@b.co to Tom") == "then [NAME] said [EMAIL] to [NAME]"
    assert redact("then Jane said", names=False) == "then Jane said"
    assert find_identifiers("Jane and Tom") == {"name": 2}
    assert "names are looked for (fake_model)" in describe("redact")


@pytest.mark.usefixtures("recogniser")
def test_names_in_long_texts_keep_their_places() -> None:
    text = "word " * 30_000 + "Jane " + "word " * 30_000 + "x" * 120_000 + " Tom"
    found = [text[span.start : span.end] for span in privacy.find(text)]
    assert found == ["Jane", "Tom"]


def test_another_recogniser_is_another_gate(request: pytest.FixtureRequest) -> None:
    before = [gate_mark(setting) for setting in SETTINGS]
    request.getfixturevalue("recogniser")
    after = [gate_mark(setting) for setting in SETTINGS]
    changed = {
        setting: old != new for setting, old, new in zip(SETTINGS, before, after, strict=True)
    }
    assert changed == {"redact": True, "drop": True, "off": False}
