"""Early stopping of trials that fall behind: Ray Tune's ASHA decides, and the trial ends by itself.

What Tune stops, it stops by ending a worker. Here its decision becomes a file, `stopped.json` in the
trial's folder; the trial sees it at the end of its epoch, saves where it is and ends, and the worker
goes on to the next trial. Such trials train alone: a group is of one. A later run without early stopping continues from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from orchestrator.storage import STOPPED_FILE, SweepFolder, write_json
from search_spaces.early_stop import EarlyStop


@dataclass(frozen=True)
class Race:
    """The trials of a stage that are compared while they train."""

    rule: EarlyStop
    specs: Mapping[str, Mapping[str, Any]]
    """Specifications, as `spec_to_dict` writes them, of the trials that may be stopped, by id."""
    epochs: int
    """The most that any of them trains for."""
    curves: Mapping[str, Sequence[float]]
    """Validation losses by epoch that earlier runs measured, by trial: a sweep that goes on knows
    what it knew."""


class EarlyStopping(ASHAScheduler):  # type: ignore[misc]  # Ray ships no types
    """Ray Tune's ASHA over trials by their own ids; stops none itself.

    Args:
        race: what is compared.
        folder: the sweep's.
    """

    def __init__(self, race: Race, folder: SweepFolder) -> None:
        super().__init__(
            time_attr="epoch",
            metric="valid_loss",
            mode="min",
            max_t=race.epochs,
            grace_period=race.rule.grace_epochs,
            reduction_factor=race.rule.reduction_factor,
            stop_last_trials=False,
        )
        self.race = race
        self.folder = folder
        for trial_id, losses in race.curves.items():
            earlier = SimpleNamespace(trial_id=trial_id)
            super().on_trial_add(None, earlier)
            for epoch, loss in enumerate(losses, start=1):
                super().on_trial_result(None, earlier, {"epoch": epoch, "valid_loss": loss})

    @property
    def metric(self) -> None:
        """None that every report must have: the one of a trial's end has no loss."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial enters the race; one that ran before is in it already."""
        if trial.config["group"] not in self._trial_info:
            super().on_trial_add(tune_controller, _by_own_id(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note a trial's loss, and write down where that says to stop; Tune itself lets it go on."""
        trial_id = trial.config["group"]
        if trial_id in self.race.specs and "valid_loss" in result:
            decision = super().on_trial_result(tune_controller, _by_own_id(trial), result)
            if decision == TrialScheduler.STOP and result["step"] < result["total_steps"]:
                self._stop(trial_id, result)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its losses have been compared by then, and stay in the race."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Its losses stay in the race."""

    def _stop(self, trial_id: str, result: Mapping[str, Any]) -> None:
        spec = self.race.specs[trial_id]
        stop = {
            "id": trial_id,
            "status": "stopped_early",
            "spec": dict(spec),
            "epoch": result["epoch"],
            "epochs": spec["training"]["epochs"],
            "step": result["step"],
            "valid_loss": result["valid_loss"],
        }
        write_json(self.folder.trial(trial_id) / STOPPED_FILE, stop)


def _by_own_id(trial: Any) -> Any:
    """What ASHA reads of a trial, under the id that it keeps in every run."""
    return SimpleNamespace(trial_id=trial.config["group"])
