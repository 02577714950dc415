"""What a method reads beside the corpus and the model: where it is, and what it holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from corpora.question_answers import content_hash, read_preferences, read_questions
from search_spaces.errors import InputError, Problem, nearest_choice, one_problem
from search_spaces.spec import ChatMglSettings, ReaderSettings, TrialSpec
from trainers.encoder_files import find_encoder


def method_inputs(spec: TrialSpec) -> dict[str, str]:
    """Content hash or fingerprint of everything further that a trial's method reads, by its field.

    Args:
        spec: the trial.

    Raises:
        InputError: with everything that is wrong in all of it.
    """
    inputs: dict[str, str] = {}
    problems: list[Problem] = []
    for field, read in _readers(spec).items():
        try:
            inputs[field] = read()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return inputs


def data_file(name: str, field: str) -> Path | None:
    """The file of question-answer data that a setting names; None for the bundled one.

    Args:
        name: `sample`, or a path.
        field: the setting.

    Raises:
        InputError: there is no such file.
    """
    if name == "sample":
        return None
    file = Path(os.path.expanduser(name))  # Unlike Path's own, leaves unknown users alone.
    if not os.path.isfile(file):  # Unlike Path's own, takes any text.
        beside = [str(other) for other in file.parent.glob("*.json*")] if file.name else []
        nearest = nearest_choice(str(file), [*beside, "sample"])
        message = "must be `sample` or a JSON or JSONL file"
        raise InputError(one_problem("search space", field, message, name, nearest))
    return file


def _readers(spec: TrialSpec) -> dict[str, Callable[[], str]]:
    """How each input's content becomes known."""
    match spec.method:
        case ChatMglSettings(rl="none") as method:
            return {"qa_data": lambda: _hash_of_questions(method)}
        case ChatMglSettings(reward_model=None) as method:
            return {
                "qa_data": lambda: _hash_of_questions(method),
                "preference_data": lambda: _hash_of_preferences(method),
            }
        case ChatMglSettings(reward_model=str(encoder)) as method:
            return {
                "qa_data": lambda: _hash_of_questions(method),
                "preference_data": lambda: _hash_of_preferences(method),
                "reward_model": lambda: find_encoder(encoder, "reward_model")[1],
            }
        case ReaderSettings(rl="ppo" | "rloo", similarity_model=encoder) as method:
            if method.similarity_weight:
                return {"similarity_model": lambda: find_encoder(encoder, "similarity_model")[1]}
    return {}


def _hash_of_questions(method: ChatMglSettings) -> str:
    return content_hash(read_questions(data_file(method.qa_data, "qa_data")))


def _hash_of_preferences(method: ChatMglSettings) -> str:
    return content_hash(read_preferences(data_file(method.preference_data, "preference_data")))
