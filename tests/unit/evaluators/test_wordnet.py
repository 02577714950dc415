from __future__ import annotations

from pathlib import Path

import pytest

from evaluators import wordnet as room
from evaluators.errors import EvaluationError
from evaluators.wordnet import find_wordnet, install_wordnet, lexnames, require_wordnet


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No WordNet anywhere, and an empty cache."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "_DEBIAN_FOLDER", tmp_path / "usr")
    return tmp_path


def fill(folder: Path) -> Path:
    """Files with the right names; what is in them does not matter where METEOR is not asked."""
    folder.mkdir(parents=True)
    for name in room._DICTIONARY_FILES:
        (folder / name).write_text("x")
    return folder


def test_lexnames_has_the_45_lines_of_wordnet() -> None:
    lines = lexnames().splitlines()
    assert len(lines) == 45
    assert lines[0] == "00\tadj.all\t3"
    assert lines[3] == "03\tnoun.Tops\t1"
    assert lines[28] == "28\tnoun.time\t1"
    assert lines[43:] == ["43\tverb.weather\t2", "44\tadj.ppl\t3"]


def test_what_is_missing_is_told_with_the_command_that_mends_it(bare: Path) -> None:
    assert find_wordnet() is None
    with pytest.raises(EvaluationError, match="python -m orchestrator doctor --install"):
        require_wordnet()


def test_every_failed_route_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(room, "_run", refuse)
    monkeypatch.setattr(room.shutil, "which", lambda tool: None)
    with pytest.raises(EvaluationError) as caught:
        install_wordnet()
    text = str(caught.value)
    assert "nltk: no network" in text
    assert "debian packages: apt-get is not installed" in text
    assert "usr is not there" in text
    assert list((bare / "cache" / "nltk_data" / "corpora").iterdir()) == []


def test_debians_files_are_taken_and_completed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bare / "usr")
    monkeypatch.setattr(room, "_check", lambda folder: None)
    installed = install_wordnet()
    assert installed.route == "debian files"
    assert (installed.folder / "lexnames").read_text() == lexnames()
    assert installed.folder.stat().st_mode & 0o022 == 0
    assert install_wordnet().route == "already there"


def test_files_that_do_not_give_nltks_score_are_not_kept(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bare / "usr")
    monkeypatch.setattr(room.shutil, "which", lambda tool: None)
    run = room._run

    def offline(command: list[str], *others: object, **settings: object) -> str:
        if "nltk.download" in str(command):
            raise OSError("no network")
        return run(command, *others, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_run", offline)
    with pytest.raises(EvaluationError, match="debian files: "):
        install_wordnet()
    assert find_wordnet() is None


def test_an_incomplete_folder_is_replaced_and_a_complete_one_left(tmp_path: Path) -> None:
    place = tmp_path / "corpora" / "wordnet"
    place.mkdir(parents=True)
    (place / "data.adj").write_text("torn")
    fresh = fill(tmp_path / "one" / "wordnet")
    (fresh / "lexnames").write_text(lexnames())
    room._publish(fresh, place)
    assert (place / "data.adj").read_text() == "x"
    other = fill(tmp_path / "two" / "wordnet")
    (other / "data.adj").write_text("y")
    room._publish(other, place)
    assert (place / "data.adj").read_text() == "x"
