"""The documentation's reference has every public name; `make docs` builds it, and fails on links that lead nowhere."""

import re
from pathlib import Path

import prunelib
from prunelib import block_refiners, refiners, warmstarts
from prunelib.methods import registry

DOCS = Path(__file__).parents[1] / "docs"
PAGES = DOCS / "pages"
LIBRARY = PAGES / "reference" / "library.md"


def test_the_reference_has_every_public_name_once():
    shown = re.findall(r"^::: (\S+)$", LIBRARY.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name.rpartition(".")[2] for name in shown]
    assert sorted(names) == sorted(prunelib.__all__)
    for path in shown:
        public = getattr(prunelib, path.rpartition(".")[2])
        assert f"{public.__module__}.{public.__name__}" == path


def test_every_method_has_a_page_that_shows_its_settings():
    for kind in (warmstarts, refiners, block_refiners):
        for name in registry.methods(kind):
            text = (PAGES / "methods" / f"{name}.md").read_text(encoding="utf-8")
            assert f"{{{{ method {kind.__name__.rpartition('.')[2]} {name} }}}}" in text


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r"(\S+\.md)$", (DOCS / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    generated = ["reference/commands.md"]
    assert sorted(listed) == sorted([page.relative_to(PAGES).as_posix() for page in PAGES.rglob("*.md")] + generated)


def test_every_example_is_on_a_page():
    shown = {
        name for page in PAGES.rglob("*.md") for name in re.findall(r"{{ example (\S+) }}", page.read_text("utf-8"))
    }
    assert shown == {path.name for path in (DOCS.parent / "examples").glob("*.py")}
