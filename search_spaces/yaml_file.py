"""YAML read safely and strictly, with the line of every value kept for messages."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import Problem, SearchSpaceError, one_problem, shown_value

Path_ = tuple[str | int, ...]
_LARGEST_BYTES = 1 << 20
_MOST_VALUES = 10_000
"""Values of a file, those that an alias repeats counted each time; a search space has hundreds."""

_TOO_LARGE = "a whole number must be below 2^63"
_TOO_MANY = f"holds more than {_MOST_VALUES} values"
_LONGEST_STEP = 100
"""Characters of a key that a message shows."""
_MOST_DIGITS = 64
_LARGEST_NUMBER = 2**63 - 1
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


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
            text += f"[{step}]" if isinstance(step, int) else f".{step[:_LONGEST_STEP]}"
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        if not path:
            return f"line {line}" if line else ""
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
        with file.open("rb") as stream:
            raw = stream.read(_LARGEST_BYTES + 1)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise SearchSpaceError(
            one_problem(name, "", f"cannot be read: {error.strerror}")
        ) from error
    if len(raw) > _LARGEST_BYTES:
        raise SearchSpaceError(
            one_problem(name, "", "a search space must be smaller than 1 MiB", f"{size} bytes")
        )
    if raw.startswith(_WIDE_MARKS):
        raise SearchSpaceError(one_problem(name, "line 1", "must be UTF-8, but is UTF-16"))
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
    data, lines = _parse(name, text)
    if not isinstance(data, dict):
        found = "an empty file" if data is None else f"a {type(data).__name__}"
        raise SearchSpaceError(
            one_problem(
                name, "line 1", f"must hold a mapping with `name` and `stages`, but is {found}"
            )
        )
    return YamlFile(name, data, lines)


def parse_value(name: str, text: str) -> Any:
    """One value, written as in YAML.

    Args:
        name: for messages.
        text: e.g. `[1, 2]`.

    Raises:
        SearchSpaceError: not YAML, or not plain data.
    """
    return _parse(name, text)[0]


def _parse(name: str, text: str) -> tuple[Any, dict[Path_, int]]:
    """YAML's data and the line of each value, or what is wrong with it as our own error."""
    try:
        return _load(name, text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise SearchSpaceError(
            one_problem(
                name,
                f"line {line}",
                "a control character cannot stand in YAML",
                hex(int(error.character)),
            )
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SearchSpaceError(one_problem(name, place, f"is not valid YAML: {what}")) from error
    except RecursionError as error:
        raise SearchSpaceError(one_problem(name, "", "is nested too deeply")) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops at a file far larger than any search space."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.values += 1
        if self.values > 2 * _MOST_VALUES:  # Keys are counted here too.
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, _TOO_MANY, mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag.endswith(":int") and len(str(node.value)) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, _TOO_LARGE, node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # As of the date 2024-13-45.
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from error
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, _TOO_LARGE, node.start_mark)
        return value


def _load(name: str, text: str) -> tuple[Any, dict[Path_, int]]:
    """The data and the line of each value."""
    loader = _Loader(text)
    problems: list[Problem] = []
    lines: dict[Path_, int] = {}
    try:
        root = loader.get_single_node()
        if root is None:
            return None, lines
        _walk(name, loader, root, (), root.start_mark.line + 1, lines, problems, [])
        if problems:
            raise SearchSpaceError(problems)
        return loader.construct_document(root), lines
    finally:
        loader.dispose()


def _walk(
    file: str,
    loader: _Loader,
    node: yaml.Node,
    path: Path_,
    line: int,
    lines: dict[Path_, int],
    problems: list[Problem],
    above: list[yaml.Node],
) -> None:
    """Note every value's line, which is its key's; find keys twice, tags, and endless aliases."""
    if any(node is other for other in above):
        problems.append(Problem(file, f"line {line}", "aliases to a parent cannot be resolved"))
        return
    if len(lines) >= _MOST_VALUES:
        # Aliases of aliases grow by powers; nothing is made of them before they are counted here.
        raise SearchSpaceError(
            one_problem(file, f"line {line}", f"{_TOO_MANY} (aliases repeat theirs)")
        )
    lines[path] = line
    _find_tag(file, loader, node, problems)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            word, at = str(getattr(key, "value", key)), key.start_mark.line + 1
            _find_tag(file, loader, key, problems)
            if word in seen:
                problems.append(
                    Problem(
                        file,
                        f"line {at}",
                        f"a key may stand once, but stands in line {seen[word]} too",
                        shown_value(word),
                    )
                )
                continue
            seen[word] = at
            _walk(file, loader, value, (*path, word), at, lines, problems, [*above, node])
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            at = value.start_mark.line + 1
            _walk(file, loader, value, (*path, index), at, lines, problems, [*above, node])


def _find_tag(file: str, loader: _Loader, node: yaml.Node, problems: list[Problem]) -> None:
    """Note a tag that makes a value something else than what it looks like."""
    plain = {loader.resolve(type(node), node.value, (True, False))}  # type: ignore[no-untyped-call]
    if isinstance(node, yaml.ScalarNode):
        plain.add("tag:yaml.org,2002:str")
    if node.tag not in plain:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        problems.append(
            Problem(
                file,
                f"line {node.start_mark.line + 1}",
                "values must be plain, without a tag",
                shown_value(tag),
            )
        )
