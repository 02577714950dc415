from __future__ import annotations

import json

import pytest

from trainers.course import Course


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("trainers.course.time", made)
    return made


def step(course: Course, clock: Clock, took: float) -> None:
    clock.now += 100  # Loading, validation, a checkpoint: between steps.
    course.begin_step()
    clock.now += took
    course.end_step()


def resumed(course: Course) -> Course:
    return Course(json.loads(json.dumps(course.to_json())))


def test_a_step_is_timed_without_what_is_between_steps(clock: Clock) -> None:
    course = Course()
    assert course.seconds_per_step is None
    for took in (9.0, 2.0, 4.0):
        step(course, clock, took)
    assert course.seconds_per_step == 3.0, "the first is slower, and does not count"


def test_one_step_is_better_than_none(clock: Clock) -> None:
    course = Course()
    step(course, clock, 9.0)
    assert course.seconds_per_step == 9.0
    assert resumed(course).seconds_per_step == 9.0
    assert resumed(Course()).seconds_per_step is None


def test_every_attempt_has_a_first_step(clock: Clock) -> None:
    course = Course()
    for took in (9.0, 2.0):
        step(course, clock, took)
    course = resumed(course)
    assert course.seconds_per_step == 2.0
    for took in (8.0, 3.0, 4.0):
        step(course, clock, took)
    assert course.seconds_per_step == 3.0
    assert resumed(course).seconds_per_step == 3.0


def test_checkpoints_from_before_steps_were_timed_are_continued(clock: Clock) -> None:
    earlier = Course().to_json()
    for name in ("steps_s", "timed_steps", "first_step_s"):
        del earlier[name]
    course = Course(earlier)
    for took in (9.0, 2.0):
        step(course, clock, took)
    assert course.seconds_per_step == 2.0
