"""Where WordNet 3.0 is, and how to get it; METEOR needs it for synonyms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evaluators.errors import EvaluationError
from search_spaces.errors import Problem
from trainers.storage import cache_folder

_DICTIONARY_FILES = (
    *(f"{kind}.{part}" for kind in ("index", "data") for part in ("adj", "adv", "noun", "verb")),
    *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb")),
    "index.sense",
    "cntlist.rev",
)
_LEXNAMES = "lexnames"
_DEBIAN_FOLDER = Path("/usr/share/wordnet")
_DEBIAN_PACKAGES = ("wordnet-base", "wordnet-sense-index")
_DOWNLOAD_TIMEOUT_S = 60
_DEBIAN_TIMEOUT_S = 180
_CHECK_TIMEOUT_S = 120

_LEXICOGRAPHER_FILES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
    *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event"),
    *("noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object"),
    *("noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process"),
    *("noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time"),
    *("verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition"),
    *("verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather"),
    "adj.ppl",
)
"""WordNet 3.0's 45 source files in their numbered order (its manual page `lexnames`)."""
_PART_OF_SPEECH = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}

_PROBE_REFERENCE = (
    "It is a guide to action that ensures that the military will forever heed Party commands"
)
_PROBE_REPLY = (
    "It is a guide to action which ensures that the military always obeys the commands of the party"
)
_PROBE_METEOR = 0.6944
"""nltk's own documented score of the two sentences."""


@dataclass(frozen=True)
class InstalledWordNet:
    """WordNet, and how it came."""

    folder: Path
    """Folder (or `wordnet.zip`) that holds its files."""
    route: str
    """`already there`, `nltk`, `debian files` or `debian packages`."""
    refused: tuple[str, ...] = ()
    """Routes that were tried before, each with why it failed."""


def nltk_data_folder() -> Path:
    """Our own nltk data folder, in the program's cache."""
    return cache_folder() / "nltk_data"


def find_wordnet() -> Path | None:
    """WordNet where nltk looks or in our own folder, which nltk looks into from now on."""
    import nltk

    own = str(nltk_data_folder())
    if own not in nltk.data.path:
        nltk.data.path.append(own)
    places = (_in_data_folder(Path(str(root))) for root in nltk.data.path)
    return next((place for place in places if place is not None), None)


def _in_data_folder(root: Path) -> Path | None:
    folder = root / "corpora" / "wordnet"
    if _lacking(folder) == [] and (folder / _LEXNAMES).is_file():
        return folder
    archive = folder.with_suffix(".zip")
    return archive if archive.is_file() else None


def require_wordnet() -> Path:
    """WordNet's place; before METEOR is asked, `find_wordnet` tells nltk of it.

    Raises:
        EvaluationError: it is not here; says how to get it.
    """
    # Importing nltk takes two seconds: not for what is where we put it.
    found = _in_data_folder(nltk_data_folder()) or find_wordnet()
    if found is None:
        raise EvaluationError([_missing("it is in none of nltk's data folders")])
    return found


def install_wordnet() -> InstalledWordNet:
    """Get WordNet from the first source that has it; safe from several processes at once.

    Raises:
        EvaluationError: no source has it; one problem a source, with its reason.
    """
    if (found := find_wordnet()) is not None:
        return InstalledWordNet(found, "already there")
    routes: tuple[tuple[str, Callable[[Path], Path]], ...] = (
        ("debian files", _from_debian_files),
        ("nltk", _from_nltk),
        ("debian packages", _from_debian_packages),
    )
    refused: list[str] = []
    corpora = nltk_data_folder() / "corpora"
    corpora.mkdir(parents=True, exist_ok=True)
    for folder in (corpora.parent, corpora):
        folder.chmod(0o755)  # nltk refuses data that others could write to, whatever the umask
    for route, fetch in routes:
        with tempfile.TemporaryDirectory(prefix=".wordnet-", dir=corpora) as scratch:
            try:
                folder = _complete(fetch(Path(scratch)), Path(scratch))
                _check(folder)
            except (OSError, ValueError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
                refused.append(f"{route}: {_first_line(error)}")
                continue
            _publish(folder, corpora / "wordnet")
        return InstalledWordNet(require_wordnet(), route, tuple(refused))
    raise EvaluationError([_missing(reason) for reason in refused])


def _missing(why: str) -> Problem:
    place = nltk_data_folder() / "corpora" / "wordnet"
    return Problem(
        "WordNet",
        "",
        f"METEOR needs WordNet 3.0 and {why}. Run `python -m orchestrator doctor --install`, or "
        f"put WordNet's dict files (with lexnames) into {place}",
    )


def _lacking(folder: Path) -> list[str]:
    """Dictionary files that a folder does not have; `lexnames` can be made and is not counted."""
    return [name for name in _DICTIONARY_FILES if not (folder / name).is_file()]


def _from_debian_files(scratch: Path) -> Path:
    """The folder of an installed `wordnet-base` and `wordnet-sense-index`."""
    return _DEBIAN_FOLDER


def _from_nltk(scratch: Path) -> Path:
    """What nltk itself downloads, in a process that can be stopped."""
    code = (
        "import sys, nltk; "
        "nltk.download('wordnet', download_dir=sys.argv[1], quiet=True, raise_on_error=True)"
    )
    _run([sys.executable, "-c", code, str(scratch)], _DOWNLOAD_TIMEOUT_S)
    corpora = scratch / "corpora"
    if not (corpora / "wordnet").is_dir():
        with zipfile.ZipFile(corpora / "wordnet.zip") as archive:
            archive.extractall(corpora)
    return corpora / "wordnet"


def _from_debian_packages(scratch: Path) -> Path:
    """Debian's packages, fetched and unpacked beside the system: no root, no lists of its own."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed")
    lists, cache, unpacked = scratch / "lists", scratch / "cache", scratch / "unpacked"
    for folder in (lists / "partial", cache / "archives" / "partial", unpacked):
        folder.mkdir(parents=True)
    aside = ["-q", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
    _run(["apt-get", "update", *aside], _DEBIAN_TIMEOUT_S)
    _run(["apt-get", "download", *aside, *_DEBIAN_PACKAGES], _DEBIAN_TIMEOUT_S, scratch)
    for package in sorted(scratch.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(unpacked)], _DEBIAN_TIMEOUT_S)
    return unpacked / _DEBIAN_FOLDER.relative_to("/")


def _run(
    command: list[str],
    timeout_s: int,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """What a command prints; its last words are the error."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip("* ")]
        raise OSError(said[-1].strip() if said else f"exit status {done.returncode}")
    return done.stdout


def _complete(source: Path, scratch: Path) -> Path:
    """A copy of the dictionary files that nltk accepts, `lexnames` made where it is missing."""
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not there")
    if lacking := _lacking(source):
        raise FileNotFoundError(f"{source} lacks {', '.join(lacking)}")
    folder = scratch / "complete" / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in _DICTIONARY_FILES:
        shutil.copyfile(source / name, folder / name)
    (folder / _LEXNAMES).write_text(lexnames(), encoding="ascii")
    for made in (folder, folder.parent, folder.parent.parent):
        made.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def lexnames() -> str:
    """The text of WordNet's `lexnames`: number, name and part of speech of 45 source files."""
    return "".join(
        f"{number:02d}\t{name}\t{_PART_OF_SPEECH[name.partition('.')[0]]}\n"
        for number, name in enumerate(_LEXICOGRAPHER_FILES)
    )


def _check(folder: Path) -> None:
    """See, in a process that knows no other WordNet, that METEOR comes out as nltk documents it."""
    code = (
        "import sys; from nltk.translate.meteor_score import single_meteor_score as meteor; "
        "print(meteor(sys.argv[1].split(), sys.argv[2].split()))"
    )
    environment = {**os.environ, "NLTK_DATA": str(folder.parent.parent)}
    command = [sys.executable, "-c", code, _PROBE_REFERENCE, _PROBE_REPLY]
    score = float(_run(command, _CHECK_TIMEOUT_S, environment=environment))
    if abs(score - _PROBE_METEOR) > 1e-4:
        raise ValueError(f"METEOR of nltk's example must be {_PROBE_METEOR}, got {score:.4f}")


def _publish(folder: Path, place: Path) -> None:
    """Put a complete folder in its place, whatever another process does there."""
    try:
        os.replace(folder, place)
    except OSError:
        # A folder with files cannot be replaced. Complete: another process was first.
        if not _lacking(place) and (place / _LEXNAMES).is_file():
            return
        os.replace(place, folder.with_name("incomplete"))
        os.replace(folder, place)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
