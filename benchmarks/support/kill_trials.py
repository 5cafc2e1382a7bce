"""Trials of the stages on a tiny project: killed, run again, and compared with a run that nothing disturbed."""

import itertools
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from families import save, tiny_model
from forked import Ended, Kill, Script, run
from pipeline_project import CELL, PARAMS, Project

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_REFINERS = {
    "swaps": {"method": "sparseswaps", "max_swaps": None},
    "swaps_least_squares": {"chain": ["sparseswaps", "least_squares"]},
    "fw": {"method": "sparsefw", "iterations": 50},
    "admm": {"method": "admm"},
    "dsnot": {"method": "dsnot"},
}
_IN_A_ROW = 3
_REFINED, _RESULT = "artifacts/refined/tiny/0/row50-wanda-{}", "results/cells/tiny/0/row50-wanda-{}.json"
_LAYERS, _TIMING = "results/layers/tiny/0/row50-wanda-{}.json", "results/timing/tiny/0/row50-wanda-{}.json"


class Command(NamedTuple):
    """A stage or a command, under the settings of a project.

    Attributes
    ----------
    name
        ``refine swaps, sequential``.
    stage
        ``refine``.
    outputs
        The files and folders it writes.
    replaces
        Whether it runs over its old outputs; export and apply refuse to.
    project
        The project whose settings it runs under: a key of :data:`OTHERS`.
    """

    name: str
    stage: str
    script: Script
    outputs: tuple[str, ...]
    replaces: bool = True
    project: str = "dense"


OTHERS = {"dense": "changed", "sequential": "true_sequential", "true_sequential": "sequential"}
"""The projects, and to each one with other settings, whose outputs have the same names."""


def _refine(refiner: str, project: str = "dense") -> Command:
    words, saves = ("stages/refine.py", *CELL[:-1], refiner), project != "dense"
    outputs = tuple(each.format(refiner) for each in (_REFINED, _LAYERS, _TIMING))
    return Command(f"refine {refiner}, {project}", "refine", Script(words, saves), outputs, project=project)


def _commands() -> Iterator[Command]:
    """Yield all commands of all projects, each after those whose outputs it reads."""
    yield Command("check", "check", Script(("stages/check.py",)), ("artifacts/code",))
    for words, output in (
        (("--model", "tiny"), "models/tiny"),
        (("--text", "ours"), "texts/ours"),
        (("--text", "theirs"), "texts/theirs"),
        ((), "tasks"),
    ):
        script = Script(("stages/download.py", *words))
        yield Command(f"download {output}", "download", script, (f"artifacts/{output}",))
    calibrate, calibrated = ("stages/calibrate.py", *CELL[:4]), ("artifacts/calibration/tiny/0",)
    yield Command("calibrate", "calibrate", Script(calibrate), calibrated)
    yield Command("calibrate, states saved", "calibrate", Script(calibrate, saves=True), calibrated)
    warmstart = ("artifacts/warmstarts/tiny/0/row50-wanda.safetensors",)
    yield Command("warmstart", "warmstart", Script(("stages/warmstart.py", *CELL[:8])), warmstart)
    yield from map(_refine, _REFINERS)
    dense = Script(("stages/evaluate.py", "--model", "tiny"))
    yield Command("evaluate dense", "evaluate", dense, ("results/cells/tiny/dense.json",))
    for refiner in _REFINERS:
        script = Script(("stages/evaluate.py", *CELL[:-1], refiner))
        yield Command(f"evaluate {refiner}", "evaluate", script, (_RESULT.format(refiner),))
    yield Command("report", "report", Script(("stages/report.py",)), ("reports",))
    export = Script(("prunelib", "export", *CELL, "--to", "exported"))
    yield Command("export", "export", export, ("exported",), replaces=False)
    folders = ("--model", "artifacts/models/tiny", "--masks", _REFINED.format("swaps"), "--to", "applied")
    yield Command("apply", "apply", Script(("prunelib", "apply", *folders)), ("applied",), replaces=False)
    for project, refiners in (
        ("sequential", ("swaps", "swaps_least_squares", "dsnot")),
        ("true_sequential", ("swaps",)),
    ):
        yield Command(f"calibrate, {project}", "calibrate", Script(calibrate), calibrated, project=project)
        chosen = Script(("stages/warmstart.py", *CELL[:8]))
        yield Command(f"warmstart, {project}", "warmstart", chosen, warmstart, project=project)
        yield from (_refine(refiner, project) for refiner in refiners)
        script, output = Script(("stages/evaluate.py", *CELL)), _RESULT.format("swaps")
        yield Command(f"evaluate swaps, {project}", "evaluate", script, (output,), project=project)


COMMANDS = tuple(_commands())


@dataclass(frozen=True)
class Mode:
    """From what a killed run starts, and what it meets.

    Attributes
    ----------
    start
        ``nothing``: no outputs; ``same``: its outputs are there; ``changed``: those of other settings are there, under
        which it is killed, before it is run again under its own.
    refuses
        Whether files in use cannot be removed, as on NFS.
    at_operation
        Whether it is killed before a file operation, else at a random moment.
    """

    start: str
    refuses: bool
    at_operation: bool

    def __str__(self) -> str:
        """Return ``over other outputs, before an operation, on NFS``."""
        start = {"nothing": "from nothing", "same": "over its outputs", "changed": "over other outputs"}[self.start]
        return f"{start}, {'before an operation' if self.at_operation else 'at random'}{', on NFS' * self.refuses}"


MODES = tuple(itertools.starmap(Mode, itertools.product(("nothing", "same", "changed"), (False, True), (True, False))))


class Outcome(NamedTuple):
    """What a trial found: kills, how many runs were stuck, and what differs from an undisturbed run."""

    kills: int
    stuck: int
    differences: list[str]


class Trials:
    """Trials in an empty folder, where the projects are made first, with all outputs.

    Parameters
    ----------
    draw
        Chooses signals' moments.
    """

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self._folder, self._draw = folder, draw
        self._undisturbed: dict[str, Ended] = {}
        self._create("dense", lambda _project: None)
        self._create("changed", _change)
        for project in ("dense", "changed"):
            self._run_all(project)
        for inputs in ("sequential", "true_sequential"):
            Project(self._folder / "dense").copy(self._folder / inputs).edit("calibration.inputs", inputs)
            self._run_all(inputs)
        self._expected = {project: _files(self._folder / project) for project in OTHERS}

    def operations(self, command: Command, mode: Mode) -> int:
        """Return how many file operations a run begins that nothing disturbs."""
        work = self._begin(command, mode)
        return self._made(command, work, refuses=mode.refuses).operations

    def trial(self, command: Command, mode: Mode, number: int, operation: int | None) -> Outcome:
        """Kill a command once to three times in a row, run it again, and compare.

        Parameters
        ----------
        number
            The signal.
        operation
            The file operation before which the first kill is; None: all are at random moments.
        """
        work, kills, stuck, found = self._begin(command, mode), 0, 0, list[str]()
        for turn in range(self._draw.randint(1, _IN_A_ROW)):
            kill = self._kill(command, number, operation if turn == 0 else None, at_operation=operation is not None)
            ended = run(command.script, work, kill, refuses=mode.refuses)
            kills += ended.status in (-number, 130)
            stuck += ended.status is None
            found += _faults(ended, kill)
            if turn == 0 and mode.start == "changed":
                self._give_own_inputs(command, work)
            if not command.replaces and (work / command.outputs[0]).exists():
                found += _differences(self._expected[command.project], _files(work), may_stay=False)
                break
        else:
            stuck += self._again(command, work, mode, found)
        return Outcome(kills, stuck, [f"{command.name}, {mode}, signal {number}, {kill}: {each}" for each in found])

    def _again(self, command: Command, work: Path, mode: Mode, found: list[str]) -> bool:
        """Run a command to its end and note what differs; whether it was stuck.

        Where removal is refused what could not be removed may stay, until a run after which it can be.
        """
        for refuses in (True, False) if mode.refuses and command.replaces else (mode.refuses,):
            ended = run(command.script, work, refuses=refuses)
            if ended.status != 0:
                found.append(f"run again: exit {ended.status}, {ended.said[-2000:]}")
                return ended.status is None
            found += _differences(self._expected[command.project], _files(work), may_stay=refuses)
        return False

    def _kill(self, command: Command, number: int, operation: int | None, *, at_operation: bool) -> Kill:
        usual = self._undisturbed[command.name]
        if at_operation:
            return Kill(number, before=operation or self._draw.randint(1, usual.operations))
        return Kill(number, after=self._draw.uniform(0, usual.seconds))

    def _begin(self, command: Command, mode: Mode) -> Path:
        """Return a project from which a run of this mode starts."""
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._folder / (OTHERS[command.project] if mode.start == "changed" else command.project), work)
        if mode.start == "nothing":
            for output in command.outputs:
                _remove(work / output)
        return work

    def _give_own_inputs(self, command: Command, work: Path) -> None:
        """Replace all files of a project with other settings, but for what the command writes."""
        own, outputs = self._folder / command.project, tuple(f"{output}/" for output in command.outputs)
        for file in own.rglob("*"):
            name = file.relative_to(own)
            if file.is_file() and file.suffix != ".lock" and not f"{name.as_posix()}/".startswith(outputs):
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, work / name)

    def _run_all(self, project: str) -> None:
        """Run all commands that make outputs of a project, and note how those ended whose own project it is."""
        for command in COMMANDS:
            if project in (command.project, OTHERS[command.project]):
                ended = self._made(command, self._folder / project)
                if project == command.project:
                    self._undisturbed[command.name] = ended

    def _made(self, command: Command, project: Path, *, refuses: bool = False) -> Ended:
        """Run a command that must succeed."""
        if not command.replaces:
            _remove(project / command.outputs[0])
        ended = run(command.script, project, refuses=refuses)
        if missing := [name for name in command.outputs if ended.status != 0 or not (project / name).exists()]:
            raise RuntimeError(f"{command.name}, {project.name}: exit {ended.status}, no {missing}\n{ended.said}")
        return ended

    def _create(self, name: str, change: Callable[[Project], None]) -> None:
        """Make a project without outputs."""
        project = Project.of_stages(self._folder / name)
        items = [{"goal": f"g {letter}", "sol1": letter, "sol2": "b", "label": 0} for letter in "cdef"]
        lines = "".join(f"{json.dumps(item)}\n" for item in items)
        (project.folder / "given/piqa.jsonl").write_text(lines, encoding="utf-8")
        tasks = {"names": ["piqa"], "limit": 4, "batch": 2}
        own = {
            "grid": {**PARAMS["grid"], "patterns": ["row50"], "refiners": list(_REFINERS)},
            "tasks": {"source": "local", "files": {"piqa": "given/piqa.jsonl"}},
            "refiners": _REFINERS,
            "evaluation": {**PARAMS["evaluation"], "tasks": tasks},
        }
        project.write_params({**PARAMS, **own})
        change(project)


def _change(project: Project) -> None:
    """Change what a project is given and its settings, so that every output but that of ``check`` is another."""
    model = tiny_model("llama")
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    save(model, project.folder / "given" / "model")
    (project.folder / "given/piqa.jsonl").write_text(
        "".join(f"{json.dumps({'goal': 'h', 'sol1': 'a', 'sol2': letter, 'label': 1})}\n" for letter in "bcdef"),
        encoding="utf-8",
    )
    for text in ("ours", "theirs"):
        project.edit(f"texts.{text}.held_out_every_nth", 4)
    project.edit("calibration.samples", 5)
    project.edit("evaluation.perplexity.tokens", 48)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(project: Path) -> dict[str, bytes | None]:
    """Return the contents of all files and folders of a project but locks; of folders and times None."""
    return {
        (name := path.relative_to(project).as_posix()): None
        if path.is_dir() or name.startswith("results/timing/")
        else path.read_bytes()
        for path in project.rglob("*")
        if path.suffix != ".lock"
    }


def _differences(
    expected: Mapping[str, bytes | None], found: Mapping[str, bytes | None], *, may_stay: bool
) -> list[str]:
    """Return what is missing, other or left behind; ``may_stay``: what waits for its removal is none of it."""
    names = sorted(name for name in expected.keys() | found.keys() if not (may_stay and ".partial" in name))
    return [
        f"{name} is missing" if name not in found else f"{name} is left" if name not in expected else f"{name} differs"
        for name in names
        if name not in found or name not in expected or expected[name] != found[name]
    ]


def _faults(ended: Ended, kill: Kill) -> list[str]:
    """Return what is wrong in how a killed run ended; at a random moment it may have ended before."""
    if ended.status == 0 and (kill.before is None or ended.operations < kill.before):
        return []
    if kill.signal != signal.SIGINT:
        return [] if ended.status == -kill.signal else [f"exit {ended.status}, {ended.said[-2000:]}"]
    errors = sum(line.startswith("error: ") for line in ended.said.splitlines())
    fine = ended.status == 130 and errors == 1 and "Traceback" not in ended.said
    return [] if fine else [f"exit {ended.status}, {ended.said[-2000:]}"]
