"""YAML read safely and strictly, with the line of every value kept for messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import Problem, SearchSpaceError, one_problem

Path_ = tuple[str | int, ...]
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class YamlFile:
    """A parsed YAML file and where its values stand."""

    name: str
    """The file as the user named it."""
    data: dict[str, Any]
    lines: dict[Path_, int] = field(default_factory=dict)
    """Line number, from 1, of each value by its path."""

    def place(self, path: Path_) -> str:
        """A value's place in words: `stages[0].grid.batch_size (line 7)`."""
        text = ""
        for step in path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}"
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        return text.lstrip(".") + (f" (line {line})" if line else "")


def read_yaml(file: Path) -> YamlFile:
    """Parse a YAML file that holds one mapping.

    Args:
        file: the file; at most 1 MiB.

    Raises:
        SearchSpaceError: not readable, not UTF-8, not YAML, a key twice, a tag or an alias that
            is not plain data, or no mapping.
    """
    name = str(file)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SearchSpaceError(
            one_problem(name, "", f"cannot be read: {error.strerror}")
        ) from error
    if len(raw) > _LARGEST_BYTES:
        raise SearchSpaceError(
            one_problem(name, "", "a search space must be smaller than 1 MiB", f"{len(raw)} bytes")
        )
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise SearchSpaceError(one_problem(name, f"line {line}", "NUL bytes cannot stand in YAML"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SearchSpaceError(
            one_problem(
                name, f"line {line}", "must be UTF-8, but has the byte", hex(raw[error.start])
            )
        ) from error
    return parse_yaml(name, text)


def parse_yaml(name: str, text: str) -> YamlFile:
    """Parse YAML text that holds one mapping; see `read_yaml`.

    Args:
        name: for messages.
        text: the file's text.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        problems: list[Problem] = []
        lines: dict[Path_, int] = {}
        if root is not None:
            _walk(name, root, (), lines, problems, [])
        if problems:
            raise SearchSpaceError(problems)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SearchSpaceError(one_problem(name, place, f"is not valid YAML: {what}")) from error
    except RecursionError as error:
        raise SearchSpaceError(one_problem(name, "", "is nested too deeply")) from error
    except (ValueError, OverflowError) as error:
        raise SearchSpaceError(one_problem(name, "", f"is not valid YAML: {error}")) from error
    if not isinstance(data, dict):
        found = "an empty file" if data is None else f"a {type(data).__name__}"
        raise SearchSpaceError(
            one_problem(
                name, "line 1", f"must hold a mapping with `name` and `stages`, but is {found}"
            )
        )
    return YamlFile(name, data, lines)


def _walk(
    file: str,
    node: yaml.Node,
    path: Path_,
    lines: dict[Path_, int],
    problems: list[Problem],
    above: list[yaml.Node],
) -> None:
    """Note every value's line; find keys that stand twice and aliases (which could grow without bound)."""
    line = node.start_mark.line + 1
    if path in lines or any(node is other for other in above):
        problems.append(Problem(file, f"line {line}", "aliases to a parent cannot be resolved"))
        return
    lines[path] = line
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            word, at = str(getattr(key, "value", key)), key.start_mark.line + 1
            if word in seen:
                problems.append(
                    Problem(
                        file,
                        f"line {at}",
                        f"a key may stand once, but stands in line {seen[word]} too",
                        repr(word),
                    )
                )
                continue
            seen[word] = at
            _walk(file, value, (*path, word), lines, problems, [*above, node])
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(file, value, (*path, index), lines, problems, [*above, node])
