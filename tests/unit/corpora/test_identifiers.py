"""What identifies is found, and figures, times and ordinary words are not taken for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.identifiers import Identifier, Span, find_spans, merge_spans, passes_luhn

FOUND: tuple[tuple[str, Identifier, str], ...] = (
    ("write to jo.smith+x@mail.example.co.uk.", "email", "jo.smith+x@mail.example.co.uk"),
    ("it is JANE_DOE@EXAMPLE.ORG, really", "email", "JANE_DOE@EXAMPLE.ORG"),
    ("jane dot doe at gmail dot com is mine", "email", "jane dot doe at gmail dot com"),
    ("jane (at) x.org", "email", "jane (at) x.org"),
    ("jane [at] mail [dot] example [dot] net", "email", "jane [at] mail [dot] example [dot] net"),
    ("mail jane underscore doe at yahoo.co.uk", "email", "jane underscore doe at yahoo.co.uk"),
    ("that's bob at hotmail.com", "email", "bob at hotmail.com"),
    ("jane @ example.com", "email", "jane @ example.com"),
    ("ask bob99 at my school dot", "email", ""),
    ("see https://example.org/a?b=c, then", "url", "https://example.org/a?b=c"),
    ("or www.example.com.", "url", "www.example.com"),
    ("I found it on betterhelp.com/start yesterday", "url", "betterhelp.com/start"),
    ("my page is instagram dot com slash jane", "url", "instagram dot com slash jane"),
    ("look at nhs.uk and example.co.uk", "url", "example.co.uk"),
    ("ftp://files.example.org/x", "url", "ftp://files.example.org/x"),
    ("from 192.168.0.17 again", "ip", "192.168.0.17"),
    (
        "2001:0db8:0000:0000:0000:ff00:0042:8329",
        "ip",
        "2001:0db8:0000:0000:0000:ff00:0042:8329",
    ),
    ("at 2001:db8:85a3::7334", "ip", "2001:db8:85a3::7334"),
    ("call 555-1234 please", "phone", "555-1234"),
    ("call (555) 123-4567", "phone", "(555) 123-4567"),
    ("call +44 20 7946 0958, please", "phone", "+44 20 7946 0958"),
    ("07700 900123.", "phone", "07700 900123"),
    ("020 7946 0958", "phone", "020 7946 0958"),
    ("555.123.4567", "phone", "555.123.4567"),
    ("text 5551234567", "phone", "5551234567"),
    ("01 23 45 67 89", "phone", "01 23 45 67 89"),
    ("in 12 weeks 555-123-4567", "phone", "555-123-4567"),
    (
        "it's oh seven nine four six oh nine five eight three two",
        "phone",
        "oh seven nine four six oh nine five eight three two",
    ),
    (
        "five five five, one two one, double four nine one",
        "phone",
        "five five five, one two one, double four nine one",
    ),
    (
        "Zero seven 7 double 0 nine 0 one 5 three",
        "phone",
        "Zero seven 7 double 0 nine 0 one 5 three",
    ),
    ("I live at 42 Maple Drive now", "address", "42 Maple Drive"),
    ("42 maple street is home", "address", "42 maple street"),
    ("at 10 Downing St, London", "address", "10 Downing St"),
    ("1600 Pennsylvania Avenue", "address", "1600 Pennsylvania Avenue"),
    ("221B Baker Street", "address", "221B Baker Street"),
    ("Twenty two Acacia Avenue", "address", "Twenty two Acacia Avenue"),
    ("7 St. John's Wood Road", "address", "7 St. John's Wood Road"),
    ("350 5th Avenue", "address", "350 5th Avenue"),
    ("12 main street", "address", "12 main street"),
    ("P.O. Box 1234", "address", "P.O. Box 1234"),
    ("po box 77", "address", "po box 77"),
    ("we moved to apartment 12b in May", "address", "apartment 12b"),
    ("Apt #4", "address", "Apt #4"),
    ("flat 4a, you know", "address", "flat 4a"),
    ("SW1A 1AA is near", "address", "SW1A 1AA"),
    ("in m1 1ae", "address", "m1 1ae"),
    ("EC1A1BB", "address", "EC1A1BB"),
    ("Springfield, IL 62704", "address", "IL 62704"),
    ("Austin, Texas 78701-1234", "address", "Texas 78701-1234"),
    ("zip 90210-1234", "address", "90210-1234"),
    ("card 4111 1111 1111 1111 expired", "card", "4111 1111 1111 1111"),
    ("card 4111-1111-1111-1111", "card", "4111-1111-1111-1111"),
    ("378282246310005", "card", "378282246310005"),
    ("my social is 078-05-1120", "id", "078-05-1120"),
    ("NHS 943 476 5919", "id", "943 476 5919"),
    ("IBAN GB29 NWBK 6016 1331 9268 19 please", "id", "GB29 NWBK 6016 1331 9268 19"),
    ("DE89370400440532013000", "id", "DE89370400440532013000"),
    ("passport AB1234567", "id", "AB1234567"),
    ("NI number QQ 12 34 56 C", "id", "QQ 12 34 56 C"),
    ("case 123456789", "id", "123456789"),
    ("my account number is 48213", "id", "48213"),
    ("Patient ID: A10442", "id", "A10442"),
    ("MRN 558812", "id", "558812"),
    ("card 4111 1111 1111 1112 again", "id", "4111 1111 1111 1112"),
)

NOT_FOUND = (
    "in 1999, from 2010-2015 and 1998 1999 2000",
    "on 2020-05-12, 12-05-1999, 12.05.1999 and 12/05/1999",
    "on 2020-05-12 10 of them came",
    "I lost 3 pounds, 20 in all, at 45",
    "it cost 1,000,000 or 1 000 000 or 1.000.000 dollars",
    "she left me $1500000000, or £ 123456789012",
    "between 1000-2000 calories and 10000-20000 steps",
    "at 10:30:45 or 9-5 on weekdays, 24/7",
    "100 200 300 milligrams, then 20 30 40 50 60",
    "1500 calories 2000 steps",
    "version 1.2.3 is 3.14159265",
    "okay.now what. yes.no. I said so.completely",
    "a @ b, @home",
    "he's 5'11, weighs 180, 3 to 4 times, 1-10",
    "I was at work dot dot dot",
    "I sat at home. com on, I said",
    "I was at the dot on the map",
    "she works at amazon and shops at target",
    "looking at us, not at him",
    "we met at 5 dot 30",
    "he put a dot in the corner",
    "one two three four five six seven eight nine ten",
    "ten nine eight seven six five four three two one",
    "breathe in, one two three four, out, one two three four",
    "oh oh oh oh oh oh oh, no",
    "one, one, one, one, one, one, one",
    "one or two, or three",
    "I drank seven, eight beers, nine maybe",
    "four seven eight breathing helps",
    "I had one two one two one two sessions",
    "two hours down the road",
    "2 blocks down the street",
    "it's a 2 lane road",
    "20 minutes on the road",
    "I saw 3 people on the street",
    "after 5 years in court we settled",
    "10 minutes a day, 3 days in a row",
    "I was 15 and on the street",
    "one way or another, one step at a time",
    "I took 2 on my way home",
    "a 3 hour drive, then a 20 minute walk",
    "12 steps, the 12 step program",
    "at 3 PM Dr Smith called",
    "I take 20 Prozac. Dr Jones knows",
    "on the 4th of July, the 21st century",
    "my flat, 2 years ago",
    "I had the apartment 3 years",
    "it fell flat 2 times",
    "I take B12 5mg and B6 10ml",
    "on the A4 5th exit",
    "IN 1999 OR 2000",
    "ok 12345",
    "vitamin D3 2000 units",
    "COVID-19 and H1N1 in 2020",
    "my A1C was 7.5, my BP 120 80",
    "120/80 and then 135/90",
    "a GPA of 3.75, top 10 percent",
    "on a scale of 1 to 10, a 7 or 8",
    "I slept 4 to 5 hours, 3 nights of 7",
    "my number one is my son",
    "case number 3, session number 12",
    "room 101, ward 7",
    "the ID card itself",
    "I owe 25000 dollars and 15000 on the car",
    "allocate 1073741824 bytes",
    "step 1234567890 steps",
    "127.0.0.1 and 0.0.0.0",
    "12:30:45, at 10:00 or ::",
    "section 1.2.3.4.5 of the manual",
    "e.g. this, i.e. that, etc.",
    "0.123456789 of it",
    "x1234567890y and a_5551234567",
    "64114580-1901-4489-b7a2-c107a2",
    "001 002 003 004 005 006 007 008",
    "back in the 90s, in my 30s and 40s",
    "about 50 50, or 60 40",
    "take 1 2 or 3",
    "",
)


def test_there_are_enough() -> None:
    assert len(set(FOUND)) == len(FOUND) >= 60
    assert len(set(NOT_FOUND)) == len(NOT_FOUND) >= 60
    assert {kind for _, kind, _ in FOUND} == set(Identifier.__args__) - {"name"}


@pytest.mark.parametrize(("text", "kind", "part"), FOUND, ids=[text for text, _, _ in FOUND])
def test_what_identifies_is_found(text: str, kind: Identifier, part: str) -> None:
    found = [(text[span.start : span.end], span.kind) for span in find_spans(text)]
    assert found == ([(part, kind)] if part else [])


@pytest.mark.parametrize("text", NOT_FOUND)
def test_other_words_and_figures_stay(text: str) -> None:
    assert find_spans(text) == ()


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "1",
            "1 ",
            "1-",
            "(1",
            "a@",
            "a.",
            "a-",
            "www.",
            "http://",
            "1.",
            "1:",
            "A1",
            "a.a",
            "+1",
        ),
        *("at ", "a at b dot ", "dot com ", "a dot com ", "one ", "oh two ", "5 A ", "5 a ", "::"),
        *("12 Oak ", "Street ", "AB12 ", "x.com", "a@b.c ", "@ ", "[at]", "case number ", "apt 1 "),
        *("a:", "12 Oak Street ", "jane at x dot com ", "GB29 NWBK ", "P.O. Box ", "twenty ", "\t"),
    ],
)
def test_time_is_linear(unit: str) -> None:
    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        return min(_timed(lambda: find_spans(text)) for _ in range(2))

    # A quadratic search would take 64 times as long; processor time, since machines are shared.
    assert seconds(160_000) < 24 * max(seconds(20_000), 0.01)


def _timed(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


@given(st.text(alphabet="ab1@.:/-+() 5wADotne", max_size=80))
def test_spans_are_in_order_apart_and_inside(text: str) -> None:
    spans = find_spans(text)
    edges = [edge for span in spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)


def test_spans_that_overlap_become_one() -> None:
    spans: Iterable[Span] = [Span(4, 9, "url"), Span(0, 5, "email"), Span(9, 11, "ip")]
    assert merge_spans(list(spans)) == (Span(0, 9, "email"), Span(9, 11, "ip"))


@pytest.mark.parametrize(
    ("digits", "right"),
    [("4111111111111111", True), ("4111111111111112", False), ("79927398713", True)],
)
def test_luhn(digits: str, right: bool) -> None:
    assert passes_luhn(digits) is right
