"""Which trials can train together on one frozen base; known before any model is loaded."""

from __future__ import annotations

from search_spaces.spec import DeltaSettings, TrialSpec

_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")


def fuse_key(spec: TrialSpec) -> tuple[object, ...] | None:
    """What trials must have in common to train together, besides the base model's weights.

    Everything else may differ: learning rate, rank, batch size, schedule, pairs, seed, length.

    Args:
        spec: the trial.

    Returns:
        A key that equal trials share; None where the trial trains alone.
    """
    method, training = spec.method, spec.training
    if not isinstance(method, DeltaSettings) or method.peft_type != "lora":
        return None
    if training.optimizer not in _OPTIMIZERS:
        return None
    # fp16 scales each training's gradients by a factor of its own, found step by step; activations
    # that are computed again would draw their dropout again.
    if training.precision == "fp16" or training.gradient_checkpointing:
        return None
    return (method.peft_type, method.target_modules, training.precision)
