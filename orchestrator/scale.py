"""Paper or laptop: decided by what is here, and said with the reason."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search_spaces.spec import Scale

ScaleChoice = Literal["auto", "paper", "laptop"]

_GPU_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Device files of NVIDIA drivers, of GPUs under WSL, and of AMD's ROCm."""


@dataclass(frozen=True)
class ChosenScale:
    """The scale of a sweep, and why it is that one."""

    scale: Scale
    reason: str


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU of this machine."""

    name: str
    memory_gib: float


def find_gpus() -> tuple[Gpu, ...]:
    """The CUDA GPUs that PyTorch here can use."""
    if shutil.which("nvidia-smi") is None and not any(Path(d).exists() for d in _GPU_DEVICES):
        return ()  # No driver at all: spares the seconds that importing torch takes.
    import torch

    if not torch.cuda.is_available():
        return ()
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return tuple(Gpu(gpu.name, gpu.total_memory / 2**30) for gpu in found)


def choose_scale(choice: ScaleChoice, gpus: tuple[Gpu, ...]) -> ChosenScale:
    """What a scale option means on this machine.

    Args:
        choice: as asked for.
        gpus: the GPUs here.
    """
    if choice != "auto":
        return ChosenScale(choice, "asked for with --scale")
    if gpus:
        return ChosenScale("paper", f"a CUDA GPU was found ({gpus[0].name})")
    return ChosenScale("laptop", "no CUDA GPU was found")
