"""What the page on models and benchmarks/README.md say of the families, from benchmarks/results/families.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = "docs/pages/how-to/model.md"
START, END = "<!-- families -->\n", "<!-- /families -->"


def shown_in(text: str) -> str:
    """Return the part of a text between the markers."""
    return text.partition(START)[2].partition(END)[0]


def names(results: Mapping[str, Any]) -> str:
    """Return the list for the page on models: the families by what becomes of them."""
    families = results["families"]
    whole, partly = (_right(families, uncovered) for uncovered in (False, True))
    refused = [each["family"] for each in families if each["outcome"] == "refused"]
    unbuilt = [each["family"] for each in families if each["outcome"] == "not built"]
    version, right = results["transformers"], len(whole) + len(partly)
    summary = (
        f"Of the {len(families)} model types that `AutoModelForCausalLM` of transformers {version} maps,\n"
        f"{right} are pruned as by brute force, tiny and with random weights\n"
        "(`python benchmarks/correctness/families.py`)."
    )
    paragraphs = (
        summary,
        f"All matrices but gates ({len(whole)}): {_listed(whole)}.",
        f"With `allow_uncovered: true`, as other matrices stay dense ({len(partly)}): {_listed(partly)}.",
        f"Refused in one line ({len(refused)}): {_listed(refused)}.",
        f"Not tried, as none could be built tiny ({len(unbuilt)}): {_listed(unbuilt)}.\n",
    )
    return "\n\n".join(paragraphs)


def table(results: Mapping[str, Any]) -> str:
    """Return the table for benchmarks/README.md: what stays dense where it is no gate, and why others are refused."""
    lines = ["| family | outcome | coverage | what stays dense, or why |", "|---|---|---|---|"]
    for each in results["families"]:
        if each["outcome"] == "right" and each["allow_uncovered"]:
            kinds = dict.fromkeys(kind.replace("`", "") for kind in each["stays_dense"])
            lines.append(_line(each["family"], "right", f"{each['coverage']:.1%}", _short("; ".join(kinds))))
        elif each["outcome"] != "right":
            lines.append(_line(each["family"], each["outcome"], "", _short(each["line"])))
    return "\n".join(lines) + "\n"


def write(results: Mapping[str, Any]) -> None:
    """Put both between the markers of their files."""
    for name, content in {PAGE: names(results), "benchmarks/README.md": table(results)}.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        replaced = text.replace(f"{START}{shown_in(text)}{END}", f"{START}{content}{END}")
        (ROOT / name).write_text(replaced, encoding="utf-8")


def _right(families: Sequence[Mapping[str, Any]], uncovered: bool) -> list[str]:
    return [each["family"] for each in families if each["outcome"] == "right" and each["allow_uncovered"] == uncovered]


def _listed(families: Sequence[str]) -> str:
    return ", ".join(f"`{family}`" for family in families) or "none"


def _line(*entries: str) -> str:
    return "| " + " | ".join(entry.replace("|", "\\|") for entry in entries) + " |"


def _short(text: str, most: int = 240) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
