"""A search space: stages of grids, as its YAML file says it, checked and frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from glob import escape, glob
from pathlib import Path
from typing import Any, Literal, get_args

from search_spaces.early_stop import EarlyStop, read_early_stop
from search_spaces.errors import (
    Problem,
    SearchSpaceError,
    nearest_choice,
    one_problem,
    shown_value,
)
from search_spaces.fields import (
    METHODS,
    check_value,
    is_list_field,
    method_fields,
    trial_fields,
    unknown_name,
)
from search_spaces.spec import Method, Scale
from search_spaces.yaml_file import Path_, YamlFile, read_yaml

Table = Literal["parameters", "methods"]
_FOLDER = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
NAME_RULE = (
    "must be letters, digits, `_`, `.` and `-`, at most 100 (it names a folder), "
    "and no name that the system or the results folder uses"
)
"""What a name that is refused is told."""

_DEVICES = frozenset(("CON", "PRN", "AUX", "NUL")) | frozenset(
    f"{port}{number}" for port in ("COM", "LPT") for number in range(10)
)
"""What Windows takes for a device, whatever ending follows: a results folder may travel."""
_TAKEN = ("mlflow.db", "mlartifacts")
"""What stands beside the sweeps' folders."""

_BEST = re.compile(
    r"valid/(loss|(rouge1|rouge2|rougeL|meteor|bertscore_(precision|recall|f1))(_beam[1-9]\d*)?)"
)
_SEEDS_RULE = "seeds are replicates, of the search space or of a stage"
_TOP_KEYS = ("name", "description", "defaults", "scales", "seeds", "early_stop", "stages")
_STAGE_KEYS = (
    *("name", "table", "from", "grid", "zip", "exclude", "methods", "seeds"),
    "early_stop",
)


@dataclass(frozen=True)
class MethodEntry:
    """One entry of a stage's `methods`."""

    settings: Method
    written: frozenset[str]
    """The method's own fields that the entry names; an axis of that name does not change them."""
    overrides: Mapping[str, Any]
    """Trial fields that the entry fixes for this method."""


@dataclass(frozen=True)
class WinnerOf:
    """Which earlier trial a stage builds on."""

    stage: str
    best: str
    """A validation metric; never a test metric, because a choice made on test scores spoils them."""
    mode: Literal["max", "min"]


@dataclass(frozen=True)
class Stage:
    """A set of trials that can run together."""

    name: str
    methods: tuple[MethodEntry, ...]
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Axes: every combination of their values."""
    zipped: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Paired axes: first values together, second values together, and so on."""
    exclude: tuple[Mapping[str, Any], ...] = ()
    """A trial is left out where every named field has the named value."""
    winner_of: WinnerOf | None = None
    table: Table | None = None
    """Which of the paper's tables shows it; absent: both."""
    seeds: tuple[int, ...] = (0,)
    early_stop: EarlyStop | None = None
    """Whether trials that fall behind end early; no part of a trial's identity."""


@dataclass(frozen=True)
class SearchSpace:
    """Everything that a sweep runs."""

    name: str
    stages: tuple[Stage, ...]
    description: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[Scale, Mapping[str, Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Set on the command line: over defaults and scales."""


def is_name(value: object) -> bool:
    """Whether a value can name a search space or a stage; see `NAME_RULE`."""
    return (
        isinstance(value, str)
        and _NAME.fullmatch(value) is not None
        and not value.endswith(".")
        and value.split(".")[0].upper() not in _DEVICES
        and value not in _TAKEN
    )


def bundled_names() -> list[str]:
    """Names of the search spaces that come with the program."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def read_space(name_or_file: str, settings: tuple[str, ...] = ()) -> SearchSpace:
    """A search space by its bundled name or its file, with the command line's overrides applied.

    Args:
        name_or_file: e.g. `paper_grid` or `my/space.yaml`.
        settings: `key=value` overrides, each value written as in YAML.

    Raises:
        SearchSpaceError: with everything that is wrong.
    """
    from search_spaces.overrides import apply_settings

    return apply_settings(parse_space(read_yaml(_find(name_or_file))), settings)


def _find(name_or_file: str) -> Path:
    if name_or_file in bundled_names():
        return _FOLDER / f"{name_or_file}.yaml"
    if os.path.isfile(name_or_file):  # Unlike Path's own, takes any text.
        return Path(name_or_file)
    folder = os.path.dirname(name_or_file)
    is_folder = ", not a folder" if os.path.isdir(name_or_file) else ""
    near = glob(os.path.join(escape(folder), "*.y*ml"))
    raise SearchSpaceError(
        one_problem(
            "search space",
            "",
            f"must be a file or one of {', '.join(bundled_names())}{is_folder}",
            name_or_file,
            nearest_choice(name_or_file, near if folder else [*bundled_names(), *near]),
        )
    )


def parse_space(yaml_file: YamlFile) -> SearchSpace:
    """Check a parsed file and freeze it.

    Args:
        yaml_file: the file's data and lines.

    Raises:
        SearchSpaceError: with everything that is wrong.
    """
    return _Parser(yaml_file).space()


class _Parser:
    """Walks the data once; gathers problems instead of stopping at the first."""

    def __init__(self, yaml_file: YamlFile) -> None:
        self.file = yaml_file
        self.problems: list[Problem] = []

    def wrong(self, path: Path_, message: str, value: object = None, nearest: str = "") -> None:
        shown = "" if value is None else shown_value(value)
        self.problems.append(
            Problem(self.file.name, self.file.place(path), message, shown, nearest)
        )

    def space(self) -> SearchSpace:
        data = self.file.data
        self.keys(data, (), _TOP_KEYS, ("name", "stages"))
        name, description = data.get("name"), data.get("description")
        if name is not None and not is_name(name):
            self.wrong(("name",), NAME_RULE, name)
        if description is not None and not isinstance(description, str):
            self.wrong(("description",), "must be text", description)
        seeds = self.seeds(data, ()) or (0,)
        defaults = self.fields(data.get("defaults"), ("defaults",))
        scales = self.scales(data.get("scales"))
        early_stop = self.early_stop(data, ())
        stages = self.stages(data.get("stages"), seeds, early_stop)
        if self.problems:
            raise SearchSpaceError(self.problems)
        return SearchSpace(
            name=str(name),
            stages=stages,
            description=description or "",
            defaults=defaults,
            scales=scales,
        )

    def keys(
        self, data: Mapping[Any, Any], path: Path_, known: tuple[str, ...], needed: tuple[str, ...]
    ) -> None:
        for key in data:
            if key not in known:
                self.problems.append(
                    unknown_name(
                        key, known, "key", self.file.name, self.file.place((*path, str(key)))
                    )
                )
        for key in needed:
            if data.get(key) is None:
                self.wrong(path, f"`{key}` is missing")

    def mapping(self, value: object, path: Path_) -> Mapping[Any, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(path, "must be a mapping of fields to values", value)
            return {}
        return value

    def seeds(self, data: Mapping[str, Any], path: Path_) -> tuple[int, ...] | None:
        if data.get("seeds") is None:
            return None
        values = self.values("seed", data["seeds"], (*path, "seeds"))
        return tuple(values)

    def early_stop(self, data: Mapping[str, Any], path: Path_) -> EarlyStop | None:
        place = self.file.place((*path, "early_stop"))
        rule, problems = read_early_stop(data.get("early_stop"), self.file.name, place)
        self.problems += problems
        return rule

    def fields(self, value: object, path: Path_, *, seed: bool = False) -> dict[str, Any]:
        """Field-value pairs: every name known, every value right; `seed` only where it is read."""
        checked = {}
        for name, one in self.mapping(value, path).items():
            if name not in trial_fields():
                self.unknown_field(name, (*path, str(name)))
                continue
            if name == "seed" and not seed:
                self.wrong((*path, name), _SEEDS_RULE, name, "seeds")
                continue
            result, problems = check_value(
                name, one, self.file.name, self.file.place((*path, name))
            )
            self.problems += problems
            if not problems:
                checked[name] = result
        return checked

    def unknown_field(self, name: object, path: Path_) -> None:
        near = nearest_choice(name, trial_fields())
        self.wrong(path, "unknown field", name, near)

    def scales(self, value: object) -> dict[Scale, dict[str, Any]]:
        result: dict[Scale, dict[str, Any]] = {}
        for name, fields in self.mapping(value, ("scales",)).items():
            if name not in get_args(Scale):
                self.problems.append(
                    unknown_name(
                        name,
                        get_args(Scale),
                        "scale",
                        self.file.name,
                        self.file.place(("scales", str(name))),
                    )
                )
                continue
            result[name] = self.fields(fields, ("scales", name))
        return result

    def values(self, name: str, value: object, path: Path_, *, paired: bool = False) -> list[Any]:
        """The values of an axis: a list, or one value; each checked; none twice, unless paired."""
        single = not isinstance(value, list) or (
            is_list_field(name) and not any(isinstance(one, list) for one in value)
        )
        listed: list[Any] = [value] if single else list(value)  # type: ignore[call-overload]
        if not listed:
            self.wrong(path, "an axis must have at least one value", value)
        found: list[Any] = []
        known: set[Any] = set()
        for index, one in enumerate(listed):
            at = path if single else (*path, index)
            result, problems = check_value(name, one, self.file.name, self.file.place(at))
            self.problems += problems
            if not problems and not paired and result in known:
                self.wrong(at, "a value may stand once in an axis", one)
            elif not problems:
                known.add(result)
                found.append(result)
        return found

    def axes(
        self, value: object, path: Path_, *, paired: bool = False
    ) -> dict[str, tuple[Any, ...]]:
        axes = {}
        for name, values in self.mapping(value, path).items():
            if name == "seed":
                self.wrong((*path, name), _SEEDS_RULE, name, "seeds")
            elif name not in trial_fields():
                self.unknown_field(name, (*path, str(name)))
            else:
                axes[name] = tuple(self.values(name, values, (*path, name), paired=paired))
        return axes

    def stages(
        self, value: object, seeds: tuple[int, ...], early_stop: EarlyStop | None
    ) -> tuple[Stage, ...]:
        if value is None:
            return ()
        if not isinstance(value, list) or not value:
            self.wrong(("stages",), "must be a list of at least one stage", value)
            return ()
        stages: list[Stage] = []
        for index, data in enumerate(value):
            path: Path_ = ("stages", index)
            if not isinstance(data, dict):
                self.wrong(path, "must be a mapping with `name` and `methods`", data)
                continue
            stage = self.stage(data, path, [s.name for s in stages], seeds)
            own = "early_stop" in data
            stages.append(stage if own else replace(stage, early_stop=early_stop))
        return tuple(stages)

    def stage(
        self, data: Mapping[str, Any], path: Path_, earlier: list[str], seeds: tuple[int, ...]
    ) -> Stage:
        self.keys(data, path, _STAGE_KEYS, ("name", "methods"))
        name = data.get("name")
        if name is not None and not is_name(name):
            self.wrong((*path, "name"), NAME_RULE, name)
        elif name in earlier:
            self.wrong((*path, "name"), "two stages may not share a name", name)
        table = data.get("table")
        if table is not None and table not in get_args(Table):
            self.wrong(
                (*path, "table"),
                f"must be {' or '.join(get_args(Table))}",
                table,
                nearest_choice(table, get_args(Table)),
            )
        grid, zipped = (
            self.axes(data.get("grid"), (*path, "grid")),
            self.axes(data.get("zip"), (*path, "zip"), paired=True),
        )
        for both in sorted(set(grid) & set(zipped)):
            self.wrong(
                (*path, "zip", both), "a field may stand in `grid` or in `zip`, not in both", both
            )
        lengths = {axis: len(values) for axis, values in zipped.items()}
        if len(set(lengths.values())) > 1:
            self.wrong((*path, "zip"), "zipped axes must have equally many values", lengths)
        exclude = data.get("exclude") or []
        if not isinstance(exclude, list):
            self.wrong((*path, "exclude"), "must be a list of mappings", exclude)
            exclude = []
        for index, rule in enumerate(exclude):
            if not rule:
                self.wrong((*path, "exclude", index), "must name at least one field", rule)
        return Stage(
            name=str(name),
            methods=self.methods(data.get("methods"), (*path, "methods")),
            grid=grid,
            zipped=zipped,
            exclude=tuple(
                self.rule(rule, (*path, "exclude", index)) for index, rule in enumerate(exclude)
            ),
            winner_of=self.winner_of(data.get("from"), (*path, "from"), earlier),
            table=table,
            seeds=self.seeds(data, path) or seeds,
            early_stop=self.early_stop(data, path),
        )

    def rule(self, value: object, path: Path_) -> dict[str, Any]:
        """An exclusion: trial fields, and `kind` for the method."""
        given = dict(self.mapping(value, path))
        rule: dict[str, Any] = {}
        if "kind" in given:
            kind = given.pop("kind")
            if kind not in list(METHODS):  # A list: what is written may not be hashable.
                self.wrong(
                    (*path, "kind"),
                    f"must be {', '.join(METHODS)}",
                    kind,
                    nearest_choice(kind, METHODS),
                )
            rule["kind"] = kind
        return rule | self.fields(given, path, seed=True)

    def winner_of(self, value: object, path: Path_, earlier: list[str]) -> WinnerOf | None:
        if value is None:
            return None
        data = self.mapping(value, path)
        self.keys(data, path, ("stage", "best", "mode"), ("stage", "best"))
        stage, best, mode = data.get("stage"), data.get("best"), data.get("mode", "max")
        if stage is not None and stage not in earlier:
            known = f"must name an earlier stage ({', '.join(earlier) or 'there is none'})"
            self.wrong((*path, "stage"), known, stage, nearest_choice(stage, earlier))
        if best is not None and not (isinstance(best, str) and _BEST.fullmatch(best)):
            on_test = isinstance(best, str) and best.startswith("test/")
            self.wrong(
                (*path, "best"),
                "a winner must be chosen on validation, never on test scores"
                if on_test
                else "must be a validation metric such as valid/rouge1_beam1 or valid/loss",
                best,
                "valid/" + best.removeprefix("test/") if on_test else "valid/rouge1_beam1",
            )
        if mode not in ("max", "min"):
            self.wrong(
                (*path, "mode"), "must be max or min", mode, nearest_choice(mode, ("max", "min"))
            )
            mode = "max"
        return WinnerOf(str(stage), str(best), mode)

    def methods(self, value: object, path: Path_) -> tuple[MethodEntry, ...]:
        if value is None:
            return ()
        if not isinstance(value, list) or not value:
            self.wrong(path, "must be a list of at least one method", value)
            return ()
        entries = []
        for index, data in enumerate(value):
            at: Path_ = (*path, index)
            if not isinstance(data, dict):
                self.wrong(at, "must be a mapping with `kind`", data, f"{{kind: {data}}}")
                continue
            kind = data.get("kind")
            if kind not in list(METHODS):
                message = "`kind` is missing" if kind is None else f"must be {', '.join(METHODS)}"
                self.wrong((*at, "kind"), message, kind, nearest_choice(kind, METHODS))
                continue
            entries.append(self.method(data, kind, at))
        return tuple(entries)

    def method(self, data: Mapping[str, Any], kind: str, path: Path_) -> MethodEntry:
        own = {k: v for k, v in data.items() if k == "kind" or k in method_fields(kind)}
        rest = {k: v for k, v in data.items() if k not in own}
        for name in list(rest):
            field_ = trial_fields().get(name)
            if field_ is None or field_.part == "method":
                del rest[name]
                near = nearest_choice(name, [*method_fields(kind), *_shared_fields()])
                self.wrong((*path, str(name)), f"unknown setting of {kind}", name, near)
        del own["kind"]
        values = self.fields(own, path)
        # Where a value is wrong, the problem is noted and the entry is never used.
        return MethodEntry(METHODS[kind](**values), frozenset(own), self.fields(rest, path))


def _shared_fields() -> list[str]:
    return [name for name, field_ in trial_fields().items() if field_.part != "method"]
