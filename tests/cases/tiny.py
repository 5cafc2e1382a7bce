"""What the cases share: a tiny project in a temporary folder, stages that run there, tiny models, and the verdict.

Cases run from the project's root, with its own environment. Backends are the plain ones, so that nothing is compiled.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path.cwd()
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "sources")]
os.environ |= {"PRUNELIB_THREADS": "1", "PRUNELIB_BACKEND": "reference", "HF_HUB_OFFLINE": "1"}

from pipeline_project import CELL, Project, character_tokenizer  # noqa: E402

DOWNLOADS = [["stages/download.py", *words] for words in (["--model", "tiny"], ["--text", "ours"], ["--text", "theirs"], [])]
CALIBRATE, WARMSTART = ["stages/calibrate.py", *CELL[:4]], ["stages/warmstart.py", *CELL[:8]]
REFINE, EVALUATE = ["stages/refine.py", *CELL], ["stages/evaluate.py", *CELL]
DENSE = ["stages/evaluate.py", "--model", "tiny"]
EXPORT = ["prunelib", "export", *CELL, "--to", "exported"]
ALL = [*DOWNLOADS, CALIBRATE, WARMSTART, REFINE, DENSE, EVALUATE]

_EACH = """
import runpy, sys
{before}
for words in {commands!r}:
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__") if words[0].endswith(".py") else runpy.run_module(words[0], run_name="__main__")
"""


@contextlib.contextmanager
def tiny_project() -> Iterator[Project]:
    """The project of the pipeline's tests: real stages, one tiny Llama, two texts."""
    with tempfile.TemporaryDirectory() as folder:
        yield Project.create(Path(folder) / "project")


def run(project, *commands, before="", timeout=300, **environment) -> tuple[int | str, str]:
    """Run scripts and modules in the project, in one process, after some Python; its exit status, and all it said."""
    words = [sys.executable, "-c", _EACH.format(before=before, commands=commands)]
    return system(project, *words, timeout=timeout, **environment)


def system(project, *words, timeout=300, **environment) -> tuple[int | str, str]:
    """Run a command in the project; its exit status, ``"no end"`` where it was stopped, and all it said."""
    said = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run(words, cwd=project.folder, env={**project.environment, **environment}, timeout=timeout, **said)
    except subprocess.TimeoutExpired as stopped:
        said = stopped.stdout or b""  # bytes, whatever was asked for
        return "no end", said if isinstance(said, str) else said.decode(errors="replace")
    return done.returncode, done.stdout


def last(said: str) -> str:
    """The last line."""
    return (said.strip().splitlines() or [""])[-1][:300]


def build(folder, family, auto="AutoModelForCausalLM", **numbers):
    """Write a tiny random model of a family, with a tokenizer of one token a character; the model."""
    import torch
    import transformers
    from families import LENGTH, WORDS, save

    base = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    base |= {"head_dim": 8, "intermediate_size": 48, "max_position_embeddings": LENGTH, "bos_token_id": 1, "eos_token_id": 2}
    own = numbers.pop("only", None)  # families with other names for their numbers
    config = transformers.AutoConfig.for_model(family, **(own or {**base, "pad_token_id": 0, **numbers}))
    torch.manual_seed(0)
    experts = {"experts_implementation": "eager"} if auto == "AutoModelForCausalLM" else {}
    model = getattr(transformers, auto).from_config(config, **experts).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2).add_(float(parameter.ndim == 1) / 2)
    shutil.rmtree(folder, ignore_errors=True)
    save(model, folder)
    character_tokenizer().save_pretrained(folder)
    return model


def verdict(fault: bool, right: str) -> None:
    """Say what is right, and exit with 1 while the fault is there."""
    print(f"right: {right}\n{'FAULT' if fault else 'fixed'}")
    sys.exit(int(fault))
