"""Training that is finished: the tuned model in `model/`, and `trained.json`, which says so.

`trained.json` is put in place last; while it holds, a trial that is run again is not trained again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.dialogue import PairSplits
from search_spaces.atomic import write_atomically
from search_spaces.identity import trial_id
from search_spaces.spec import ReaderSettings, TrialSpec
from trainers.fingerprint import folder_fingerprint
from trainers.progress import EpochReport, StepRow
from trainers.saving import save_model, write_settings
from trainers.whole_folders import describe_files, first_difference, write_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORMAT = 1
_FILE, _MODEL = "trained.json", "model"


@dataclass(frozen=True)
class Finished:
    """What `trained.json` says."""

    rows: tuple[StepRow, ...]
    report: EpochReport
    """The last epoch's."""
    train_loss: float | None
    valid_loss: float
    trainable_parameters: int
    total_parameters: int
    truncated_references: int
    seconds: float
    """Training time over all attempts."""
    adjusted: Mapping[str, int]
    """Training settings that are not as specified, because memory ran out."""
    seconds_per_step: float | None = None
    """Mean time of an optimiser step; see `Course`."""
    fused_with: int = 0
    """How many others it trained together with; its times are then its share of the group's."""


def training_identity(spec: TrialSpec, source: Path, pairs: PairSplits) -> str:
    """What a checkpoint or a tuned model must say to be this training's.

    Args:
        spec: the trial.
        source: folder of the model to start from; its contents count.
        pairs: training and validation pairs; their texts count, and where the method learns acts
            from hidden states, so do the training replies' acts.
    """
    texts: list[Any] = [
        [[p.prompt, p.reference] for p in part] for part in (pairs.train, pairs.valid)
    ]
    if isinstance(spec.method, ReaderSettings):
        texts.append([p.act for p in pairs.train])
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return trial_id(
        spec,
        corpus_hash=digest,
        model_fingerprint=folder_fingerprint(source),
        metric_versions={},
    )


def write_finished(
    workdir: Path,
    identity: str,
    spec: TrialSpec,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    finished: Finished,
) -> str:
    """Save the tuned model, then the word that it is whole.

    Args:
        workdir: the trial's folder.
        identity: of the training.
        spec: the trial.
        model: as it was tuned.
        tokenizer: its tokenizer.
        finished: what training came to.

    Returns:
        SHA-256 of the tuned weights.

    Raises:
        OSError: the disk is full; nothing half-written is left.
    """
    return write_trained(
        workdir, identity, lambda aside: save_model(model, tokenizer, spec, aside), asdict(finished)
    )


def write_trained(
    workdir: Path, identity: str, save: Callable[[Path], None], trained: Mapping[str, Any]
) -> str:
    """Save a model of any kind under `model/`, then the word that it is whole.

    Args:
        workdir: the training's folder.
        identity: of the training.
        save: saves the model in the folder it is given.
        trained: what training came to; JSON data.

    Returns:
        SHA-256 of the model's weights.

    Raises:
        OSError: the disk is full; nothing half-written is left.
    """
    # What it said of a model that is about to be replaced.
    (workdir / _FILE).unlink(missing_ok=True)
    folder = workdir / _MODEL
    write_folder(folder, save)
    files = describe_files(folder)
    content = {
        "format": _FORMAT,
        "identity": identity,
        "trained": dict(trained),
        "files": files,
    }
    text = json.dumps({**content, "sha256": _digest(content)}, indent=1, allow_nan=False)
    write_atomically(workdir / _FILE, text)
    return _weights_digest(identity, files)


def read_finished(workdir: Path, identity: str) -> tuple[Finished | None, str, str]:
    """What finished training came to, where it is finished and its model is whole.

    Args:
        workdir: the trial's folder.
        identity: of the training.

    Returns:
        What it came to, or None; SHA-256 of the tuned weights; and why what is there does not
        count, empty where nothing is there.
    """
    found, digest, why = read_trained(workdir, identity)
    if found is None:
        return None, digest, why
    trained = dict(found)
    trained["rows"] = tuple(StepRow(**row) for row in trained["rows"])
    trained["report"] = EpochReport(**trained["report"])
    return Finished(**trained), digest, ""


def read_trained(workdir: Path, identity: str) -> tuple[Mapping[str, Any] | None, str, str]:
    """What `write_trained` said, where it holds and the model is whole.

    Args:
        workdir: the training's folder.
        identity: of the training.

    Returns:
        What training came to, or None; SHA-256 of the model's weights; and why what is there does
        not count, empty where nothing is there.
    """
    try:
        content = json.loads((workdir / _FILE).read_bytes())
    except FileNotFoundError:
        return None, "", ""
    except (OSError, ValueError, RecursionError) as error:
        return None, "", f"{_FILE} was passed over: it cannot be read ({error})"
    why = _why_not(content, identity, workdir / _MODEL)
    if why:
        return None, "", f"{_FILE} was passed over: {why}"
    return content["trained"], _weights_digest(identity, content["files"]), ""


def take_model(
    workdir: Path, source: Path, tokenizer: PreTrainedTokenizerBase, spec: TrialSpec
) -> Path:
    """Give a trial the model that a phase has saved, under `model/`, without copying its weights.

    Files are linked where the file system can, and only copied where not. Card and generation
    settings are the trial's own.

    Args:
        workdir: the trial's folder.
        source: folder of the phase's model.
        tokenizer: the model's.
        spec: the trial.

    Returns:
        The folder.
    """
    folder = workdir / _MODEL

    def fill(aside: Path) -> None:
        shutil.copytree(source, aside, dirs_exist_ok=True, copy_function=_link_or_copy)
        for name in ("generation_config.json", "README.md"):
            (aside / name).unlink(missing_ok=True)  # Not to write into the phase's.
        write_settings(tokenizer, spec, aside)

    write_folder(folder, fill)
    return folder


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def model_folder(workdir: Path) -> Path:
    """Where the tuned model is.

    Args:
        workdir: the trial's folder.
    """
    return workdir / _MODEL


def _why_not(content: Any, identity: str, folder: Path) -> str:
    if not isinstance(content, dict):
        return "it must hold a JSON object"
    rest = {key: value for key, value in content.items() if key != "sha256"}
    if content.get("sha256") != _digest(rest):
        return "it is not as it was written"
    if content.get("format") != _FORMAT:
        return f"its format is {content.get('format')!r}, not {_FORMAT}"
    if content.get("identity") != identity:
        return "it belongs to other settings, another model or other pairs"
    difference = first_difference(folder, content.get("files"))
    return f"in {_MODEL}/, {difference}" if difference else ""


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _weights_digest(identity: str, files: Mapping[str, Mapping[str, Any]]) -> str:
    """An adapter's weights mean something only on their base, which the identity covers."""
    weights = {name: file["sha256"] for name, file in files.items() if ".safetensors" in name}
    return f"sha256:{_digest({'training': identity, 'weights': weights})}"
