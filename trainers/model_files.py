"""Model folders that somebody else may have made: read as data, never run.

What could run code on this machine, or lead out of the folder, is refused before anything is loaded.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from search_spaces.errors import Problem, shown_value

_SETTINGS_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
)
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_MOST_JSON_BYTES = 1 << 28
"""Far above any tokenizer's vocabulary."""

_CONVERT = (
    "convert it where you trust it: "
    "`AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)` writes model.safetensors"
)


def find_dangers(folder: Path, *, known_code: bool = False) -> list[Problem]:
    """What in a model folder would run code, read files outside it, or is not what it says.

    Args:
        folder: a folder with a model's weights, settings and tokenizer.
        known_code: whether `auto_map` may stand beside a model type that transformers itself has,
            as in folders from before it had it; the folder's own code is not run either way.
    """
    problems = [*_settings_problems(folder, known_code), *_index_problems(folder)]
    if (folder / "adapter_config.json").is_file():
        message = (
            "an adapter would load the model that it names instead of this folder's: "
            "merge it into its base (`merge_and_unload`), or remove this file"
        )
        problems.append(Problem(str(folder / "adapter_config.json"), "", message))
    problems += _weights_problems(folder)
    return problems


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a model's file.

    Args:
        file: of a model folder.

    Raises:
        ValueError: not a readable JSON object of a sensible size; the message says why.
    """
    try:
        if file.stat().st_size > _MOST_JSON_BYTES:
            raise ValueError("is far too large")
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("must hold a JSON object")
    return data


def _settings_problems(folder: Path, known_code: bool) -> Iterator[Problem]:
    for name in _SETTINGS_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            settings = read_object(file)
        except ValueError as error:
            yield Problem(str(file), "", f"must be JSON: {error}")
            continue
        if settings.get("auto_map") and not (known_code and _is_known(folder)):
            yield Problem(
                str(file),
                "auto_map",
                "the folder's own code is never run; a model must be one that transformers has",
                shown_value(settings["auto_map"]),
            )
        for path, value in _texts(settings):
            key = str(path[-1])
            if key.endswith("_implementation") and "/" in value:
                # transformers would fetch a kernel of that name and run it.
                message = "code that would have to be fetched is never run"
                yield Problem(str(file), ".".join(map(str, path)), message, shown_value(value))
            elif (key.endswith("_file") or key == "transformers_weights") and _leads_out(value):
                message = "a file must lie in the model's folder itself"
                yield Problem(str(file), ".".join(map(str, path)), message, shown_value(value))


def _is_known(folder: Path) -> bool:
    """Whether transformers itself has the folder's kind of model."""
    from transformers import CONFIG_MAPPING

    try:
        kind = read_object(folder / "config.json").get("model_type")
    except ValueError:
        return False  # Told as a problem of its own.
    return isinstance(kind, str) and kind in CONFIG_MAPPING


def _index_problems(folder: Path) -> Iterator[Problem]:
    for name in _INDEX_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            shards = read_object(file).get("weight_map")
        except ValueError as error:
            yield Problem(str(file), "", f"must be JSON: {error}")
            continue
        if not isinstance(shards, dict):
            yield Problem(str(file), "weight_map", "must map tensors to files")
            continue
        for shard in dict.fromkeys(map(str, shards.values())):
            if _leads_out(shard):
                message = "weights must lie in the model's folder itself"
                yield Problem(str(file), "weight_map", message, shown_value(shard))


def _weights_problems(folder: Path) -> Iterator[Problem]:
    """Weights that are not whole, or not weights; only the kind that would be loaded is looked at."""
    from safetensors import SafetensorError, safe_open

    safe = sorted(folder.glob("*.safetensors"))
    for file in safe:
        try:
            with safe_open(file, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            message = f"must be whole safetensors weights: {error}"
            yield Problem(str(file), "", message)
    if not safe:
        for file in sorted(folder.glob("pytorch_model*.bin")):
            if (why := _pickle_problem(file)) is not None:
                yield Problem(str(file), "", why)


def _pickle_problem(file: Path) -> str | None:
    """Why pickled weights cannot be used; they are read without running what they hold."""
    import torch

    zipped = zipfile.is_zipfile(file)
    try:
        if zipped and _is_compressed(file):
            return f"weights are stored, never compressed; {_CONVERT}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Of strange pickles, refused below.
            data = torch.load(file, map_location="meta", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError:
        return f"must hold tensors alone; what else a pickle holds is never run; {_CONVERT}"
    except Exception as error:
        # The boundary to bytes of anybody's: torch's reader stumbles over them in any way.
        return f"must be whole PyTorch weights: {_first_line(error)}"
    if not isinstance(data, dict) or not all(map(torch.is_tensor, data.values())):
        return f"must map names to tensors; {_CONVERT}"
    return None


def _is_compressed(file: Path) -> bool:
    """Whether reading the file could fill the memory with far more than its size."""
    with zipfile.ZipFile(file) as archive:
        return any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())


def _leads_out(name: str) -> bool:
    return name != Path(name).name or "\\" in name or name in (".", "..")


def _texts(value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in JSON data with its path."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, one = waiting.pop()
        if isinstance(one, str):
            yield path, one
        elif isinstance(one, dict | list):
            inside: Iterable[tuple[Any, Any]] = (
                one.items() if isinstance(one, dict) else enumerate(one)
            )
            waiting += [((*path, key), each) for key, each in inside]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
