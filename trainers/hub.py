"""The Hugging Face hub: asked once, with a time limit, and never in the way of work that needs no hub."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

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
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/models/{name}")
    if token := get_token():
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        raise HubError(f"the hub does not give it out ({error})") from error
    except (OSError, ValueError) as error:
        raise HubError(f"the hub cannot be reached ({error})") from error
    files = tuple(str(entry.get("rfilename", "")) for entry in said.get("siblings", []))
    return HubModel(name, str(said.get("sha")), files)


def download(name: str) -> Path:
    """A model's snapshot in the Hugging Face cache, downloaded where it is not there yet.

    Args:
        name: Hugging Face name.

    Raises:
        HubError: the hub does not give it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    model = describe(name)
    safe = any(file.endswith(".safetensors") for file in model.files)
    weights = [] if safe else ["pytorch_model*.bin"]
    try:
        folder = snapshot_download(
            name,
            revision=model.commit,
            allow_patterns=[*_FILES, *weights],
            ignore_patterns=list(_NOT_FILES),
        )
    except (OSError, HfHubHTTPError) as error:
        raise HubError(f"its download failed ({error})") from error
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
    """Whether a folder holds a model's weights, whole or in shards."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
