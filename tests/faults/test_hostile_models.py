"""Model and encoder folders that somebody prepared: their code never runs, and they say why."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.hostile import CANARY, Bomb, check_refused, nothing_written
from tests.unit.orchestrator.command_line import CommandLine
from trainers.errors import ModelError
from trainers.loading import load_model

SPACE = """\
name: tiny
defaults: {max_length: 96, max_new_tokens: 8, bertscore_model: null}
stages: [{name: first, methods: [{kind: sft, model: ./given}]}]
"""
EVIL = f"open({CANARY!r}, 'w').close()\n"
Spoil = Callable[[Path], None]


def rewrite(name: str, **changes: Any) -> Spoil:
    """Change a JSON file's keys, or make the file."""

    def spoil(folder: Path) -> None:
        file = folder / name
        known = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(known | changes))
        for module in ("modeling_evil", "tokenization_evil", "configuration_evil"):
            (folder / f"{module}.py").write_text(EVIL)

    return spoil


def with_bin(write: Callable[[Path], None]) -> Spoil:
    """Put pickled weights in the place of the safe ones."""

    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        write(folder / "pytorch_model.bin")

    return spoil


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: void((folder / name).write_bytes(content))


def void(_: object) -> None:
    return None


def torch_zip(data: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    """A file as `torch.save` makes it, around a pickle of our own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return stream.getvalue()


def legacy(file: Path) -> None:
    torch.save({"a": Bomb()}, file, _use_new_zipfile_serialization=False)


def lying_header(folder: Path) -> None:
    """Offsets beyond the file's end, and one of 2^62 bytes."""
    header = {"wte": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)


def index(name: str, shard: str) -> Spoil:
    def spoil(folder: Path) -> None:
        kept = folder.parent / "elsewhere"
        kept.mkdir(exist_ok=True)
        shutil.move(folder / "model.safetensors", kept / "model.safetensors")
        (folder / f"{name}.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": {"a": shard, "b": shard}})
        )

    return spoil


UNKNOWN = {"model_type": "evil", "architectures": ["EvilModel"]}
AUTO_MAP = {"AutoConfig": "configuration_evil.E", "AutoModelForCausalLM": "modeling_evil.E"}
DANGEROUS: dict[str, tuple[Spoil, str]] = {
    "pickle bomb as torch saves it": (
        with_bin(lambda file: torch.save({"a": Bomb()}, file)),
        "given/pytorch_model.bin: must hold tensors alone",
    ),
    "pickle bomb of an old torch": (with_bin(legacy), "given/pytorch_model.bin: must hold tensors"),
    "plain pickle bomb": (
        with_bin(lambda file: void(file.write_bytes(pickle.dumps(Bomb())))),
        "given/pytorch_model.bin: must",
    ),
    "pickle bomb of protocol 0": (
        with_bin(lambda file: void(file.write_bytes(pickle.dumps(Bomb(), protocol=0)))),
        "given/pytorch_model.bin: must",
    ),
    "pickle bomb in a zip": (
        with_bin(lambda file: void(file.write_bytes(torch_zip(pickle.dumps(Bomb(), 2))))),
        "given/pytorch_model.bin: must hold tensors alone",
    ),
    "eval in a pickle": (
        with_bin(lambda file: void(file.write_bytes(torch_zip(b"c__builtin__\neval\n(S'1'\ntR.")))),
        "given/pytorch_model.bin: must hold tensors alone",
    ),
    "100 MB of zeros in a small zip": (
        with_bin(
            lambda file: void(file.write_bytes(torch_zip(bytes(10**8), zipfile.ZIP_DEFLATED)))
        ),
        "given/pytorch_model.bin: weights are stored, never compressed",
    ),
    "list for weights": (
        with_bin(lambda file: torch.save([torch.zeros(2)], file)),
        "given/pytorch_model.bin: must map names to tensors",
    ),
    "text for weights": (
        with_bin(lambda file: void(file.write_bytes(b"version https://git-lfs"))),
        "given/pytorch_model.bin: must",
    ),
    "code of its own for an unknown model": (
        rewrite("config.json", auto_map=AUTO_MAP, **UNKNOWN),
        "given/config.json: auto_map: the folder's own code is never run",
    ),
    "code from elsewhere": (
        rewrite("config.json", auto_map={"AutoConfig": "owner/evil--c.E"}, **UNKNOWN),
        "given/config.json: auto_map: the folder's own code is never run",
    ),
    "unknown model without code": (rewrite("config.json", **UNKNOWN), "given: cannot be loaded"),
    "kernel from the hub": (
        rewrite("config.json", _attn_implementation="owner/evil-kernel"),
        "given/config.json: _attn_implementation: code that would have to be fetched",
    ),
    "weights by a path": (
        rewrite("config.json", transformers_weights="../elsewhere/model.safetensors"),
        "given/config.json: transformers_weights: a file must lie in the model's folder",
    ),
    "vocabulary by a path": (
        rewrite("tokenizer_config.json", vocab_file="/etc/passwd"),
        "given/tokenizer_config.json: vocab_file: a file must lie in the model's folder",
    ),
    "adapter of another model": (
        rewrite("adapter_config.json", base_model_name_or_path="../elsewhere", peft_type="LORA"),
        "given/adapter_config.json: an adapter would load the model that it names",
    ),
    "shards above the folder": (
        index("model.safetensors", "../elsewhere/model.safetensors"),
        "given/model.safetensors.index.json: weight_map: weights must lie in the model's folder",
    ),
    "pickled shards above the folder": (
        index("pytorch_model.bin", "../elsewhere/model.safetensors"),
        "given/pytorch_model.bin.index.json: weight_map: weights must lie in the model's folder",
    ),
    "index nested too deeply": (
        write("model.safetensors.index.json", b'{"weight_map": ' + b"[" * 100_000),
        "given/model.safetensors.index.json: must be JSON",
    ),
    "lying header": (lying_header, "given/model.safetensors: must be whole safetensors weights"),
    "header of 2^63 bytes": (
        write("model.safetensors", struct.pack("<Q", 1 << 63) + b"{}"),
        "given/model.safetensors: must be whole safetensors weights",
    ),
    "configuration nested too deeply": (
        write("config.json", b'{"a": ' + b"[" * 100_000),
        "given/config.json: must be JSON: is nested too deeply",
    ),
    "configuration with 5,000 digits": (
        write("config.json", b'{"n_layer": ' + b"9" * 5000 + b"}"),
        "given/config.json: must be JSON",
    ),
    "configuration that is a list": (
        write("config.json", b"[]"),
        "given/config.json: must be JSON",
    ),
}
AT_LOADING = ("unknown model without code",)
"""What only loading finds; it is refused there as any other."""


@pytest.fixture
def given(tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder to spoil, where relative payloads run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "given"))


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_dangerous_model_is_refused(given: Path, line: CommandLine, name: str) -> None:
    spoil, says = DANGEROUS[name]
    spoil(given)
    line.write("grid.yaml", SPACE)
    with nothing_written(line.folder):
        if name not in AT_LOADING:
            check_refused(line.run("plan", "grid.yaml", "--scale", "laptop"), says)
        with pytest.raises(ModelError) as refused:
            load_model(given)
    assert any(says in str(problem) for problem in refused.value.problems)


ENCODERS = (
    *("pickle bomb as torch saves it", "plain pickle bomb", "lying header", "kernel from the hub"),
    *(
        "code of its own for an unknown model",
        "shards above the folder",
        "adapter of another model",
    ),
    *("configuration nested too deeply", "configuration with 5,000 digits"),
)


@pytest.mark.parametrize("name", [*ENCODERS, "code beside a known model"])
def test_a_dangerous_encoder_is_refused(given: Path, line: CommandLine, name: str) -> None:
    # bert-score loads encoders itself, and cannot be told to leave their code alone.
    spoil, says = DANGEROUS.get(name) or (HARMLESS[name], "given/config.json: auto_map: the folder")
    spoil(given)
    line.write("grid.yaml", SPACE.replace("./given", "medium").replace("null", "./given"))
    with nothing_written(line.folder):
        check_refused(line.run("plan", "grid.yaml", "--scale", "laptop"), says)


HARMLESS: dict[str, Spoil] = {
    "training arguments that are a bomb": lambda folder: torch.save(
        Bomb(), folder / "training_args.bin"
    ),
    "optimiser that is a bomb": lambda folder: torch.save(Bomb(), folder / "optimizer.pt"),
    "bomb beside safe weights": lambda folder: torch.save(Bomb(), folder / "pytorch_model.bin"),
    "code beside a known model": rewrite("config.json", auto_map=AUTO_MAP),
    "tokenizer with code of its own": rewrite(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.E", None]}
    ),
    "chat template": write(
        "chat_template.jinja",
        b"{{ ''.__class__.__mro__[1].__subclasses__() }}{% for _ in range(10**12) %}{% endfor %}",
    ),
    "weights pickled by torch": with_bin(lambda file: None),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_would_be_dangerous_is_not_touched(given: Path, line: CommandLine, name: str) -> None:
    weights = load_file(given / "model.safetensors")
    HARMLESS[name](given)
    if name == "weights pickled by torch":
        torch.save(weights, given / "pytorch_model.bin")
    line.write("grid.yaml", SPACE)
    with nothing_written(line.folder):
        done = line.run("plan", "grid.yaml", "--scale", "laptop")
        assert (done.code, done.err) == (0, "")
        model, _ = load_model(given)
    assert torch.equal(
        model.state_dict()["transformer.h.0.mlp.c_fc.weight"],
        weights["transformer.h.0.mlp.c_fc.weight"],
    )
