"""A whole project in a folder: the real dvc.yaml, stages and library over a tiny model, tiny texts and tiny tasks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from families import WORDS, save, tiny_model
from ruamel.yaml import YAML
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from warm_commands import warm_commands

ROOT = Path(__file__).parents[2]
LETTERS = "abcdefghijklmnopqrstuvwxyz .,\n"
PARAMS = {
    "grid": {
        "models": ["tiny"],
        "seeds": [0],
        "texts": ["ours", "theirs"],
        "patterns": ["row50", "nm24"],
        "warmstarts": ["wanda"],
        "refiners": ["none", "swaps"],
    },
    "models": {"tiny": {"source": "local", "path": "given/model"}},
    "texts": {
        "ours": {"source": "local", "members": ["given/ours/*.txt"], "held_out_every_nth": 3},
        "theirs": {"source": "local", "members": ["given/theirs/*.txt"], "held_out_every_nth": 2},
    },
    "tasks": {"source": "hub"},
    "calibration": {"text": "ours", "samples": 6, "length": 16, "batch": 4},
    "patterns": {"row50": {"kind": "per_row", "sparsity": 0.5}, "nm24": {"kind": "n_of_m", "keep": 2, "group": 4}},
    "warmstarts": {"wanda": {}, "magnitude": {}},
    "refiners": {"none": {}, "swaps": {"method": "sparseswaps", "max_swaps": None}},
    "evaluation": {
        "perplexity": {"length": 16, "tokens": 64, "batch": 2},
        "tasks": {"names": [], "limit": 4, "batch": 2},
        "samples": {"prompts": ["a cat"], "tokens": 4},
    },
    "labels": {},
}
EVERYTHING = [
    "download_model@tiny",
    "download_text@ours",
    "download_text@theirs",
    "download_tasks",
    "calibrate@tiny-0",
    *(f"warmstart@tiny-0-{pattern}-wanda" for pattern in ("row50", "nm24")),
    *(f"refine@tiny-0-{pattern}-wanda-{refiner}" for pattern in ("row50", "nm24") for refiner in ("none", "swaps")),
    "evaluate_dense@tiny",
    *(f"evaluate@tiny-0-{pattern}-wanda-{refiner}" for pattern in ("row50", "nm24") for refiner in ("none", "swaps")),
    "report",
]
CELL = ("--model", "tiny", "--seed", "0", "--pattern", "row50", "--warmstart", "wanda", "--refiner", "swaps")
ARGUMENTS = {"calibrate": CELL[:4], "refine": CELL, "evaluate": CELL}
"""What the script of a stage is told to make one cell."""
OUTPUTS = {
    "calibrate": ("artifacts/calibration",),
    "refine": ("artifacts/refined/tiny/0/row50-wanda-swaps", "results/layers/tiny/0"),
    "evaluate": ("results/cells/tiny/0",),
}


def character_tokenizer():
    """One token a character, of at most WORDS."""
    vocabulary = {"<unk>": 0, **{letter: 3 + index for index, letter in enumerate(LETTERS)}}
    assert max(vocabulary.values()) < WORDS
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")  # noqa: S106 - as above


class Project:
    """A project folder, with git and DVC, whose commands use so many threads: others run beside them.

    With ``forks`` its commands are forks of one process; without, they start as a user's.
    """

    def __init__(self, folder: Path, threads: int = 1, *, forks: bool = True) -> None:
        self.folder, self.threads, self.forks = folder, threads, forks

    @classmethod
    def create(cls, folder: Path) -> "Project":
        """With a copy of the library and with DVC: what ``dvc repro`` needs."""
        project = cls.of_stages(folder)
        shutil.copytree(ROOT / "prunelib", folder / "prunelib", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / ".gitignore", folder)
        project.command("git", "init", "--quiet")
        project.command("dvc", "init", "--quiet")
        for name in (".dvcignore", ".dvc/config"):
            shutil.copy(ROOT / name, folder / name)
        project.commit("start")
        return project

    @classmethod
    def of_stages(cls, folder: Path) -> "Project":
        """Without git, DVC and the library: what the scripts of the stages need."""
        project = cls(folder)
        folder.mkdir(parents=True)
        shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "dvc.yaml", folder)
        save(tiny_model("llama"), folder / "given" / "model")
        character_tokenizer().save_pretrained(folder / "given" / "model")
        for text, offset in (("ours", 0), ("theirs", 7)):
            for number in range(6):
                path = folder / "given" / text / f"{number}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_text("".join(LETTERS[(i * i + offset + number * i) % len(LETTERS)] for i in range(90)))
        project.write_params(PARAMS)
        return project

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def write_params(self, params) -> None:
        with (self.folder / "params.yaml").open("w") as stream:
            YAML().dump(params, stream)

    def edit(self, key: str, value) -> None:
        """Set one dotted key of params.yaml."""
        yaml = YAML()
        params = yaml.load((self.folder / "params.yaml").read_text())
        *path, last = key.split(".")
        section = params
        for part in path:
            section = section[part]
        section[last] = value
        self.write_params(params)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(self.folder),
            "PRUNELIB_THREADS": str(self.threads),
            "DVC_NO_ANALYTICS": "1",
        }

    def command(self, *words: str, fails: bool = False) -> str:
        """Run a command in the project; its output, both streams."""
        environment = self.environment
        if self.forks:
            environment["PATH"] = f"{warm_commands()}{os.pathsep}{environment['PATH']}"
        result = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert (result.returncode != 0) == fails, result.stdout
        return result.stdout

    def commit(self, message: str) -> None:
        self.command("git", "add", "--all")
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        self.command("git", *who, "commit", "--quiet", "--message", message)

    def repro(self, *options: str, fails: bool = False) -> list[str]:
        """The names of the stages that ``dvc repro`` ran, but for ``check``: it runs whenever params.yaml changes."""
        ran = re.findall(r"Running stage '(.*)'", self.command("dvc", "repro", *options, fails=fails))
        return [name for name in ran if name != "check"]

    def cut_off_lock(self, folder: str = ".") -> None:
        """Cut off dvc.lock in the middle, as a kill while DVC writes it."""
        path = self.folder / folder / "dvc.lock"
        text = path.read_text()
        path.write_text(text[: text.rindex("- path") + 1])

    def outcomes(self, *folders: str) -> dict[str, bytes]:
        """Contents of all files in these folders that are the same in every run: all but what it cost."""
        costs = ("results/timing/", "reports/timing.csv", "reports/report.html")
        return {name: content for name, content in self.files(*folders).items() if not name.startswith(costs)}

    def files(self, *folders: str) -> dict[str, bytes]:
        """Contents of all files in these folders."""
        found = (path for folder in folders for path in (self.folder / folder).rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}
