"""Set-up on any machine: pins that resolve, a wheel that asks for what it uses, a word where the Python is too old."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from families import save, tiny_model
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pipeline_project import LETTERS, character_tokenizer

import prunelib

ROOT = Path(__file__).parents[1]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==([\w.+]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
PYTHONS = ("3.11", "3.12", "3.13")


def run(*words, **options):
    """Run a command; its output, both streams, and its status."""
    done = subprocess.run(
        [str(word) for word in words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **options,
    )
    return done.stdout, done.returncode


def resolve(platform, python, constraints=ROOT / "constraints.txt"):
    """What the public index gives for all extras: neither pip's settings nor wheels of this machine count."""
    words = (sys.executable, "-m", "uv", "pip", "compile", "--no-config", "--quiet", "--no-header", "--no-annotate")
    wanted = ("--python-platform", platform, "--python-version", python, "--all-extras", "--constraints", constraints)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    # the oldest macOS that the public wheels of torch are for
    options = {"env": environment | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}}
    for _ in range(3):
        found, status = run(*words, *wanted, ROOT / "pyproject.toml", **options)
        if status >= 0:  # a signal is a crash of uv, not an answer: 0.13.9 has crashed at its exit once
            break
    return found, status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "python"),
    [*((platform, python) for platform in PLATFORMS for python in PYTHONS), (PLATFORMS[0], "3.14")],
)
def test_the_pins_resolve_and_pin_everything(platform, python):
    found, status = resolve(platform, python)
    assert status == 0, found
    chosen = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", found, re.MULTILINE))
    assert chosen.keys() >= {"torch", "dvc", "lm-eval", "ray", "dvc-s3", "pytest"}
    assert chosen.items() <= PINS.items()


@pytest.mark.slow
def test_pins_that_only_a_build_without_triton_takes_do_not_resolve(tmp_path):
    pins = (ROOT / "constraints.txt").read_text()
    other = tmp_path / "constraints.txt"
    other.write_text(re.sub(r"^triton==[\d.]+", "triton==3.6.0", pins, flags=re.MULTILINE))
    assert other.read_text() != pins
    found, status = resolve(PLATFORMS[0], "3.11", other)
    assert status != 0
    assert "torch" in found
    assert "triton" in found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: building leaves folders beside the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "prunelib", source / "prunelib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    found, status = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source)
    assert status == 0, found
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as members:
        (folder,) = {name.partition("/")[0] for name in members.namelist() if ".dist-info/" in name}
        metadata = members.read(f"{folder}/METADATA").decode()
        commands = members.read(f"{folder}/entry_points.txt").decode()
        tops = {name.partition("/")[0] for name in members.namelist()}
    assert tops == {"prunelib", folder}
    assert f"\nVersion: {prunelib.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nAuthor: The prunelib authors\n" in metadata
    assert "Project-URL" not in metadata
    assert "prunelib = prunelib.cli.app:main" in commands


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The Python of an empty environment with the wheel installed, and what the wheel asks for without extras.

    That is linked from the environment of the tests: installing torch again would take gigabytes.
    """
    environment = tmp_path_factory.mktemp("bare") / "environment"
    assert run(sys.executable, "-m", "venv", environment)[1] == 0
    python = environment / "bin" / "python"
    found, status = run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    assert status == 0, found
    (packages,) = environment.glob("lib/python*/site-packages")
    for name in needed("prunelib"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    return python


def needed(name):
    """Names of all that a distribution asks for without extras, and what that asks for."""
    found, waiting = set(), {name}
    while waiting:
        asked = [Requirement(line) for line in importlib.metadata.requires(waiting.pop()) or ()]
        wanted = {
            canonicalize_name(each.name) for each in asked if not each.marker or each.marker.evaluate({"extra": ""})
        }
        waiting |= {each for each in wanted - found if each not in ABSENT}
        found |= wanted - ABSENT
    return found


ABSENT = {"triton"} - {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
"""What torch's public build asks for, and a build for CPUs alone lacks."""


@pytest.mark.slow
def test_the_bare_wheel_runs_the_example_of_a_layer(bare, tmp_path):
    example = (ROOT / "examples" / "prune_a_layer.py").read_text("utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found, status = run(bare, "-W", "error", "-c", example, cwd=tmp_path, env=environment)
    assert status == 0, found
    assert len(found.splitlines()) == 2, found
    found, status = run(bare, "-c", "import lm_eval", cwd=tmp_path, env=environment)
    assert status != 0, "the environment is not bare"


@pytest.mark.slow
def test_a_command_without_its_packages_names_them_in_one_line(bare, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["COLUMNS"] = "200"
    found, status = run(bare.parent / "prunelib", "run", cwd=tmp_path, env=environment)
    assert status == 2
    assert "'.[workflow,evaluate]'" in found
    assert re.search(r"\bdvc\b", found), found
    assert "Traceback" not in found


@pytest.mark.slow
def test_the_bare_wheel_prunes_a_model_in_a_folder(bare, tmp_path):
    folder = save(tiny_model("llama"), tmp_path / "model")
    character_tokenizer().save_pretrained(folder)
    (tmp_path / "text.txt").write_text("".join(LETTERS[i * i % len(LETTERS)] for i in range(200)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    few = ("--samples", "4", "--length", "12")
    words = ("prune", "model", "--text", "text.txt", "--pattern", "2:4", *few, "--out", "pruned")
    found, status = run(bare.parent / "prunelib", *words, cwd=tmp_path, env=environment)
    assert status == 0, found
    found, status = run(bare.parent / "prunelib", "verify", "pruned", cwd=tmp_path, env=environment)
    assert status == 0, found


def make(folder, *words, **environment):
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return run("make", "run", f"PYTHON={sys.executable}", *words, cwd=folder, env=os.environ | environment)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("import sys; sys.version_info = (3, 10, 4)", "this is Python 3.10 on"),
        ("import platform; platform.system = lambda: 'Windows'", "on Windows"),
        ("import platform; platform.system, platform.machine = lambda: 'Darwin', lambda: 'x86_64'", "on Darwin x86_64"),
    ],
)
def test_an_unsupported_machine_gets_one_line(tmp_path, told, said):
    (tmp_path / "sitecustomize.py").write_text(told)
    found, status = make(tmp_path, PYTHONPATH=str(tmp_path))
    assert status != 0
    lines = [line for line in found.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert lines[0].startswith("error: needs Python 3.11 to 3.14 on Linux (x86_64, aarch64) or macOS (arm64), this is ")
    assert said in lines[0]
    assert not (tmp_path / ".venv").exists()
