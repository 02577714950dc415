from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.privacy import find_identifiers, redact


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to jo.smith+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("see https://example.org/a?b=c, or www.example.com.", "see [URL], or [URL]."),
        ("I found it on betterhelp.com/start yesterday", "I found it on [URL] yesterday"),
        ("from 192.168.0.17 again", "from [IP] again"),
        ("2001:0db8:0000:0000:0000:ff00:0042:8329", "[IP]"),
        ("call 555-1234 or (555) 123-4567", "call [PHONE] or [PHONE]"),
        ("call +44 20 7946 0958, please", "call [PHONE], please"),
        ("07700 900123.", "[PHONE]."),
        ("020 7946 0958", "[PHONE]"),
        ("555.123.4567 and 5551234567", "[PHONE] and [PHONE]"),
        ("01 23 45 67 89", "[PHONE]"),
        ("card 4111 1111 1111 1111 expired", "card [NUMBER] expired"),
        ("card 4111-1111-1111-1111", "card [NUMBER]"),
        ("my social is 078-05-1120", "my social is [NUMBER]"),
        ("passport AB1234567", "passport [NUMBER]"),
        ("case 123456789", "case [NUMBER]"),
    ],
)
def test_what_identifies_goes(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert sum(find_identifiers(text).values()) == redacted.count("[")


@pytest.mark.parametrize(
    "text",
    [
        "in 1999, from 2010-2015 and 1998 1999 2000",
        "on 2020-05-12, 12-05-1999, 12.05.1999 and 12/05/1999",
        "I lost 3 pounds, 20 in all, at 45",
        "it cost 1,000,000 or 1 000 000 or 1.000.000 dollars",
        "between 1000-2000 calories and 10000-20000 steps",
        "at 10:30:45 or 9-5 on weekdays, 24/7",
        "100 200 300 milligrams, then 20 30 40 50 60",
        "1500 calories 2000 steps",
        "version 1.2.3 is 3.14159265",
        "okay.now what. yes.no. I said so.completely",
        "a @ b, @home",
        "he's 5'11, weighs 180, 3 to 4 times, 1-10",
        "one hundred and 1234567 sheep",
    ],
)
def test_figures_stay(text: str) -> None:
    assert redact(text) == text
    assert not find_identifiers(text)


def test_kinds_are_counted() -> None:
    assert find_identifiers("a@b.co, c@d.co, 555-1234") == {"email": 2, "phone": 1}


@pytest.mark.parametrize(
    "unit",
    ["1", "1 ", "1-", "(1", "a@", "a.", "a-", "www.", "http://", "1.", "1:", "A1", "a.a", "+1"],
)
def test_time_is_linear(unit: str) -> None:
    started = time.perf_counter()
    find_identifiers(unit * 100_000)
    assert time.perf_counter() - started < 3


@given(st.text(alphabet="ab1@.:/-+() 5w", max_size=60))
def test_redacted_text_holds_nothing_more(text: str) -> None:
    redacted = redact(text)
    assert (redacted == text) == (not find_identifiers(text))
