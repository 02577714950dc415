"""Checkpoints on disk: `checkpoint-<step>/`, whole or not there, read as data and never run.

`tensors.safetensors` holds what is trained, the optimiser's tensors and the random states;
`state.json` everything else; `manifest.json` what the two must be, and whose they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.whole_folders import describe_files, discard, first_difference, write_folder

if TYPE_CHECKING:
    import torch

_FORMAT = 1
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"checkpoint-([0-9]{1,18})")

WEIGHTS = "weights/"
"""Begins the names of trained parameters among a checkpoint's tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole."""

    folder: Path
    step: int
    """Optimiser steps done."""
    state: Mapping[str, Any]
    """The content of `state.json`."""

    def tensors(self, kind: str) -> dict[str, torch.Tensor]:
        """The tensors of one kind, on the CPU, by what their names say beyond it.

        Args:
            kind: how their names begin.
        """
        from safetensors import safe_open

        with safe_open(self.folder / _TENSORS, framework="pt") as opened:
            return {
                # A copy: the file is removed while its tensors are in use.
                name.removeprefix(kind): opened.get_tensor(name).clone()
                for name in opened.keys()  # noqa: SIM118 (not a mapping)
                if name.startswith(kind)
            }


def write_checkpoint(
    workdir: Path,
    step: int,
    identity: str,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
) -> None:
    """Put a checkpoint in place, then remove every other.

    Args:
        workdir: the trial's folder.
        step: optimiser steps done.
        identity: of the training it belongs to.
        tensors: by a name that begins with its kind, such as `weights/`.
        state: JSON data.

    Raises:
        OSError: the disk is full; earlier checkpoints are kept.
    """
    from safetensors.torch import save_file

    def fill(folder: Path) -> None:
        save_file(dict(tensors), folder / _TENSORS)
        text = json.dumps(dict(state), allow_nan=False)
        (folder / _STATE).write_text(text, encoding="utf-8")
        manifest = {
            "format": _FORMAT,
            "step": step,
            "identity": identity,
            "files": describe_files(folder),
        }
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")

    target = workdir / f"checkpoint-{step}"
    write_folder(target, fill)
    for _, folder in _checkpoints(workdir):
        if folder != target:
            discard(folder)


def newest_checkpoint(
    workdir: Path, identity: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest checkpoint that can be continued, and why newer ones were passed over.

    Args:
        workdir: the trial's folder.
        identity: of the training that is to continue.
        shapes: of the parameters that it trains, by name.
    """
    notes: list[str] = []
    for step, folder in sorted(_checkpoints(workdir), reverse=True):
        why, state = _inspect(folder, step, identity, shapes)
        if not why:
            return Checkpoint(folder, step, state), tuple(notes)
        notes.append(f"{folder.name} was passed over: {why}")
    return None, tuple(notes)


def remove_checkpoints(workdir: Path) -> None:
    """Remove every checkpoint; training is over.

    Args:
        workdir: the trial's folder.
    """
    for _, folder in _checkpoints(workdir):
        discard(folder)


def _checkpoints(workdir: Path) -> list[tuple[int, Path]]:
    matches = [(_NAME.fullmatch(folder.name), folder) for folder in workdir.glob("checkpoint-*")]
    return [(int(match[1]), folder) for match, folder in matches if match and folder.is_dir()]


def _inspect(
    folder: Path, step: int, identity: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, dict[str, Any]]:
    """Why a checkpoint cannot be continued (empty where it can), and its state."""
    from safetensors import SafetensorError, safe_open

    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if not isinstance(manifest, dict):
            return f"{_MANIFEST} is unreadable", {}
        if manifest.get("format") != _FORMAT:
            return f"its format is {manifest.get('format')!r}, not {_FORMAT}", {}
        if manifest.get("identity") != identity:
            return "it belongs to other settings, another model or other pairs", {}
        files = manifest.get("files")
        expected = {_TENSORS, _STATE}
        if not isinstance(files, dict) or set(files) != expected:
            return f"{_MANIFEST} must list {' and '.join(sorted(expected))}", {}
        present = {entry.name for entry in folder.iterdir()}
        if strangers := sorted(present - expected - {_MANIFEST}):
            return f"{strangers[0]!r} does not belong to it", {}
        if why := first_difference(folder, files, ignored=(_MANIFEST,)):
            return why, {}
        state = json.loads((folder / _STATE).read_bytes())
        if not isinstance(state, dict) or state.get("step") != step:
            return f"{_STATE} is not of step {step}", {}
        with safe_open(folder / _TENSORS, framework="pt") as opened:
            found = {
                name.removeprefix(WEIGHTS): tuple(opened.get_slice(name).get_shape())
                for name in opened.keys()  # noqa: SIM118 (not a mapping)
                if name.startswith(WEIGHTS)
            }
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing", {}
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        return f"it cannot be read ({str(error).splitlines()[0]})", {}
    if found != dict(shapes):
        return "its parameters are not those that are trained", {}
    return "", state
