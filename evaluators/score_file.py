"""A file of replies and references becomes the seven metrics: scoring without a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.errors import EvaluationError
from evaluators.metric_versions import METRIC_NAMES, METRIC_VERSIONS
from evaluators.replies import Reply
from evaluators.score import StreamingScorer, score
from search_spaces.errors import Problem, nearest_choice
from search_spaces.spec import MetricsSpec

_KEYS = ("reply", "reference")
_MIXED = ("part", "beam")
"""Keys of a trial's `replies.jsonl` that tell its sets of replies apart."""
_SHOWN_CHARACTERS = 80
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class ReplyLine:
    """One line of a reply file."""

    reply: str
    reference: str


def read_reply_file(path: Path) -> tuple[ReplyLine, ...]:
    """The replies and references of a JSONL file; other keys and blank lines are passed over.

    Args:
        path: UTF-8 text, one object with "reply" and "reference" a line.

    Raises:
        EvaluationError: every line that is not such an object, or a file that cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        near = _nearest_file(path) if isinstance(error, FileNotFoundError) else ""
        raise EvaluationError(
            [Problem(str(path), "", f"must be a file that can be read: {reason}", "", near)]
        ) from error
    problems: list[Problem] = []
    lines: list[ReplyLine] = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not raw.strip():
            continue
        found = list(_problems(raw))
        problems += [
            Problem(str(path), f"line {number}", message, value, near)
            for message, value, near in found
        ]
        if not found:
            record = json.loads(raw)
            lines.append(ReplyLine(record["reply"], record["reference"]))
    if not lines and not problems:
        message = 'must hold one object with "reply" and "reference" a line, but is empty'
        problems.append(Problem(str(path), "", message))
    if len(problems) > _SHOWN_PROBLEMS:
        more = Problem(str(path), "", f"{len(problems) - _SHOWN_PROBLEMS} more lines like these")
        problems = [*problems[:_SHOWN_PROBLEMS], more]
    if problems:
        raise EvaluationError(problems)
    return tuple(lines)


def score_file(
    path: Path, metrics: MetricsSpec, scorer: StreamingScorer | None = None
) -> dict[str, Any]:
    """Mean scores of a reply file, as JSON takes them.

    Args:
        path: see `read_reply_file`.
        metrics: which encoder, if any.
        scorer: one to use again, of the same metrics.

    Returns:
        `n`, the seven metrics (null where BERTScore is left out), `bertscore_model`,
        `bertscore_layer`, `empty_replies`, `empty_references`, `metric_versions`.

    Raises:
        EvaluationError: the file, the encoder or WordNet is not as needed.
    """
    lines = read_reply_file(path)
    replies = [
        Reply(str(number), 1, str(number), line.reference, line.reply)
        for number, line in enumerate(lines)
    ]
    scores = score(replies, metrics, scorer)
    encoder = scores.encoder
    return {
        "n": len(lines),
        **{name: scores.means[1].get(name) for name in METRIC_NAMES},
        "bertscore_model": None if encoder is None else encoder.name,
        "bertscore_layer": None if encoder is None else encoder.layer,
        "empty_replies": sum(not line.reply.strip() for line in lines),
        "empty_references": sum(not line.reference.strip() for line in lines),
        "metric_versions": METRIC_VERSIONS,
    }


def mixed_keys(path: Path) -> tuple[str, ...]:
    """What would be averaged together, where a file holds replies of several parts or beam widths.

    Args:
        path: see `read_reply_file`.

    Raises:
        EvaluationError: as `read_reply_file` does.
    """
    read_reply_file(path)
    values: dict[str, dict[str, None]] = {key: {} for key in _MIXED}
    for raw in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines():
        if raw.strip():
            record = json.loads(raw)
            for key in _MIXED:
                if key in record:
                    values[key].setdefault(str(record[key]))
    return tuple(f"{key} {', '.join(found)}" for key, found in values.items() if len(found) > 1)


def _problems(raw: bytes) -> Iterator[tuple[str, str, str]]:
    """What is wrong with one line: message, value, nearest name."""
    if b"\0" in raw:
        yield "must be text, but holds a NUL byte", "", ""
        return
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = raw[error.start : error.end]
        yield f"must be UTF-8, but byte {error.start + 1} is not", repr(bad), ""
        return
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(":")[0] if isinstance(error, ValueError) else "too deep"
        yield f"must be JSON ({reason})", _shown(text), ""
        return
    if not isinstance(record, dict):
        yield 'must be an object with "reply" and "reference"', _shown(text), ""
        return
    for key in _KEYS:
        if key not in record:
            unknown = [name for name in record if name not in _KEYS]
            near = nearest_choice(key, unknown)
            yield (
                f'must have the key "{key}"',
                _shown(", ".join(record)),
                f'"{key}" for "{near}"' if near else "",
            )
        elif not isinstance(record[key], str):
            yield f'"{key}" must be a string', _shown(json.dumps(record[key])), ""
        elif any("\ud800" <= letter <= "\udfff" for letter in record[key]):
            yield f'"{key}" must be text, but holds half a surrogate pair', _shown(text), ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    near = nearest_choice(path.name, [entry.name for entry in path.parent.iterdir()])
    return str(path.parent / near) if near else ""
