"""The Hugging Face hub: asked once, with a time limit, and never in the way of work that needs no hub."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from search_spaces.secrets import hide_secrets

_TIMEOUT_S = 5.0
_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model")
_NOT_FILES = ("onnx/*", "openvino/*", "coreml/*", "*.msgpack", "*.h5", "*.ot", "*.tflite")


class HubError(OSError):
    """The hub does not give a model; the message says why, in a line."""


@dataclass(frozen=True)
class HubModel:
    """What the hub says of a model."""

    name: str
    commit: str
    files: tuple[str, ...]


def describe(name: str) -> HubModel:
    """Ask the hub for a model's commit and files; downloads nothing.

    The hub's own client retries an unreachable host for half a minute; this is one plain request
    with a time limit, proxies honoured.

    Args:
        name: Hugging Face name.

    Raises:
        HubError: offline mode, no answer within five seconds, or no such model.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1":
        raise HubError("offline mode is on (HF_HUB_OFFLINE)")
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/models/{urllib.parse.quote(name)}")
    if token := get_token():
        # Not to where the hub may send the request on.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        raise HubError(f"the hub does not give it out ({error})") from error
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise HubError(f"the hub cannot be reached ({hide_secrets(str(error))})") from error
    try:
        files = tuple(str(entry["rfilename"]) for entry in said.get("siblings", []))
        return HubModel(name, str(said["sha"]), files)
    except (AttributeError, KeyError, TypeError) as error:
        place = hide_secrets(constants.ENDPOINT)
        raise HubError(f"{place} answers, but not as a hub does") from error


def download(name: str) -> Path:
    """A model's snapshot in the Hugging Face cache, downloaded where it is not there yet.

    Args:
        name: Hugging Face name.

    Raises:
        HubError: the hub does not give it.
    """
    from huggingface_hub import snapshot_download

    # The client of either generation names here the root of its transport's errors.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    model = describe(name)
    safe = any(
        file in ("model.safetensors", "model.safetensors.index.json") for file in model.files
    )
    weights = [] if safe else ["pytorch_model*.bin"]
    try:
        # No `revision`: for a commit the client would keep no reference, and the next trial (or the
        # next run, offline) would not find in the cache what this one put there.
        folder = snapshot_download(
            name, allow_patterns=[*_FILES, *weights], ignore_patterns=list(_NOT_FILES)
        )
    except (OSError, HTTPError) as error:
        raise HubError(f"its download failed ({hide_secrets(str(error))})") from error
    return Path(folder)


def cached_snapshot(name: str) -> Path | None:
    """A model's snapshot in the Hugging Face cache, where it is there with weights.

    Args:
        name: Hugging Face name; a name that the hub could not know has no snapshot.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    if not isinstance(file, str):
        return None
    folder = Path(file).parent
    return folder if has_weights(folder) else None


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's weights, whole or in shards (and then all of them)."""
    return not missing_weights(folder)


def missing_weights(folder: Path) -> list[str]:
    """Files that a model's weights lack: none, some shards, or `model.safetensors` for all.

    Args:
        folder: looked into as transformers does: safetensors first, one file before shards.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return []
        index = folder / f"{name}.index.json"
        shards = _shards(index) if index.is_file() else []
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        # An index alone is no beginning: snapshots hold that of the format that was not fetched.
        if len(missing) < len(shards):
            return missing
    return ["model.safetensors"]


def _shards(index: Path) -> list[str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(map(str, weight_map.values())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # Cut short, so the weights count as missing.
