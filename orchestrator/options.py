"""Arguments and options that commands share, and how their values are read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class ScaleOption(StrEnum):
    """Choices of --scale."""

    auto = "auto"
    paper = "paper"
    laptop = "laptop"


class LoaderOption(StrEnum):
    """Choices of --loader."""

    v1 = "v1"
    v2 = "v2"
    shift = "shift"


def _text(value: Any) -> Any:
    """A path that can be written down; refuses bytes that are no text."""
    try:
        str(value or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"must be UTF-8 text, got {str(value)!r}") from None
    return value


SpaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME_OR_FILE",
        callback=_text,
        help="A bundled search space (paper_grid, smoke, ...) or a YAML file.",
    ),
]
CorpusOption = Annotated[
    str | None,
    typer.Option(
        callback=_text,
        help="`sample`, a HOPE folder or file, or an AnnoMI CSV; over the search space's.",
    ),
]
ScaleArgument = Annotated[
    ScaleOption, typer.Option(help="paper: GPT-2 medium and large; laptop: small models, no GPU.")
]
OutOption = Annotated[Path, typer.Option(callback=_text, help="Folder of all sweeps' results.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of every trial; may be repeated."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]


def _whole_number(text: str, least: int, most: int) -> int:
    # typer's own bounds do not say what was given.
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise typer.BadParameter(f"must be a whole number from {least} to {most}, got {text!r}")
    return int(text)


CpusOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=lambda text: _whole_number(text, 1, 65536),
        help="Trials at once without a GPU; default: all cores.",
    ),
]
PortOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        parser=lambda text: _whole_number(str(text), 1, 65535),
        help="Port on this machine.",
    ),
]
SweepArgument = Annotated[Path, typer.Argument(metavar="SWEEP_DIR", help="A sweep's results.")]
