"""Paper or laptop, and why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator import scale
from orchestrator.scale import Gpu, choose_scale, find_gpus

GPUS = (Gpu("NVIDIA H200", 139.8), Gpu("NVIDIA T4", 14.7))


def test_auto_takes_paper_where_there_is_a_gpu_and_says_which() -> None:
    chosen = choose_scale("auto", GPUS)
    assert (chosen.scale, chosen.reason) == ("paper", "a CUDA GPU was found (NVIDIA H200)")


def test_auto_takes_laptop_elsewhere() -> None:
    chosen = choose_scale("auto", ())
    assert (chosen.scale, chosen.reason) == ("laptop", "no CUDA GPU was found")


@pytest.mark.parametrize("asked", ["paper", "laptop"])
@pytest.mark.parametrize("gpus", [(), GPUS])
def test_what_is_asked_for_is_what_is_taken(asked: scale.Scale, gpus: tuple[Gpu, ...]) -> None:
    chosen = choose_scale(asked, gpus)
    assert (chosen.scale, chosen.reason) == (asked, "asked for with --scale")


def test_without_a_driver_torch_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(scale, "_GPU_DEVICES", (str(tmp_path / "none"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    assert find_gpus() == ()


def test_a_driver_that_torch_cannot_use_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_gpus() == ()


def test_gpus_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        name = "NVIDIA A100"
        total_memory = 80 * 2**30

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties())
    assert find_gpus() == (Gpu("NVIDIA A100", 80.0),) * 2
