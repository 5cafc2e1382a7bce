"""The families of models that are pruned as by brute force, from benchmarks/results/families.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from parts.committed import benchmarked


def sentence() -> str:
    """Return how many model types are pruned as by brute force."""
    result = benchmarked("families")
    right = [each for each in result["families"] if each["outcome"] == "right"]
    partly = sum(each["allow_uncovered"] for each in right)
    return (
        f"Of the {len(result['families'])} causal model types of transformers {result['transformers']}, "
        f"{len(right)} are pruned exactly as by a brute-force reference (tested on tiny models with random weights), "
        f"{partly} of them only in part, with `allow_uncovered: true`.\n"
    )


def listed() -> str:
    """Return the list for the page on models: the families by what becomes of them."""
    results = benchmarked("families")
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


def in_table() -> str:
    """Return the table for benchmarks/README.md: what stays dense where it is no gate, and why others are refused."""
    lines = ["| family | outcome | coverage | what stays dense, or why |", "|---|---|---|---|"]
    for each in benchmarked("families")["families"]:
        if each["outcome"] == "right" and each["allow_uncovered"]:
            kinds = dict.fromkeys(kind.replace("`", "") for kind in each["stays_dense"])
            lines.append(_line(each["family"], "right", f"{each['coverage']:.1%}", _short("; ".join(kinds))))
        elif each["outcome"] != "right":
            lines.append(_line(each["family"], each["outcome"], "", _short(each["line"])))
    return "\n".join(lines) + "\n"


def _right(families: Sequence[Mapping[str, Any]], uncovered: bool) -> list[str]:
    return [each["family"] for each in families if each["outcome"] == "right" and each["allow_uncovered"] == uncovered]


def _listed(families: Sequence[str]) -> str:
    return ", ".join(f"`{family}`" for family in families) or "none"


def _line(*entries: str) -> str:
    return "| " + " | ".join(entry.replace("|", "\\|") for entry in entries) + " |"


def _short(text: str, most: int = 240) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
