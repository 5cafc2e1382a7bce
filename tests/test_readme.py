"""What the README says works."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_and_lowers_the_error(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own example
    before, after, optimal = re.match(r"([\d.e+]+) ([\d.e+]+) tensor\((\w+)\)", capsys.readouterr().out).groups()
    assert float(after) < float(before)
    assert optimal == "True"


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:\$|`)\s?make ([a-z0-9]+)", README)) <= targets


def test_every_method_stands_in_the_table():
    from prunelib import refiners, registry, warmstarts

    for package in (warmstarts, refiners):
        for name in registry.methods(package):
            assert f"| `{name}` |" in README


def test_every_variable_of_the_machine_stands_in_the_table():
    from prunelib.machine import Machine

    for name in Machine.model_fields:
        assert f"`PRUNELIB_{name.upper()}`" in README
