"""The model card of a pruned model: how it was pruned, measured figures, and how to load it."""

import json
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from prunelib.export.origin import Origin
from prunelib.markdown import escaped
from prunelib.records import CellResult

_UNKNOWN = Origin()


def model_card(
    name: str,
    made_from: Mapping[str, Any],
    dense: CellResult | None,
    pruned: CellResult | None,
    origin: Origin = _UNKNOWN,
) -> str:
    """Return a model card in Markdown, with the figures as metadata for the hub.

    Parameters
    ----------
    name
        Name of the dense model.
    made_from
        Settings of ``calibration``, ``pattern``, ``warmstart`` and ``refiner``; ``kept_weights`` where they are not
        those that the refiner gave.
    dense, pruned
        Figures of the dense and of the pruned model; None: not measured.
    origin
        The dense model's name on the hub and its licence, which are the base model and the licence of the pruned one.
    """
    data = ModelCardData(
        model_name=f"{name}, pruned",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["pruning", "sparsity", str(made_from["refiner"]["method"])],
        eval_results=_metadata(pruned) if pruned else None,
        base_model=origin.base_model,
        license=origin.licence.get("license"),
        license_name=origin.licence.get("license_name"),
        license_link=origin.licence.get("license_link"),
    )
    keys = ("calibration", "pattern", "warmstart", "refiner", "kept_weights")
    settings = json.dumps({key: made_from[key] for key in keys if key in made_from}, indent=2)
    return "\n".join(
        [
            f"---\n{data.to_yaml()}\n---\n",
            f"# {escaped(name)}, pruned\n",
            *_origin(origin),
            "Pruned weights are exact zeros in the dense model's own files, names and dtypes; `masks.safetensors` has",
            "the mask, one bit per weight, and `provenance.json` what it was made from.\n",
            f"```json\n{settings}\n```\n",
            *_figures(dense, pruned),
            "```python\nfrom transformers import AutoModelForCausalLM\n",
            'model = AutoModelForCausalLM.from_pretrained("this folder")\n```\n',
            "The files are as large as the dense model's: zeros save space only when packed.\n",
        ]
    )


def _origin(origin: Origin) -> list[str]:
    """Return a sentence on the dense model and its licence; none if both are unknown."""
    known = {"Base model": origin.base_model, "Licence": _licence(origin.licence)}
    parts = [f"{heading}: {escaped(value)}." for heading, value in known.items() if value]
    return [" ".join(parts) + "\n"] if parts else []


def _licence(metadata: Mapping[str, str]) -> str | None:
    name = metadata.get("license_name", metadata.get("license"))
    return f"{name} ({link})" if name and (link := metadata.get("license_link")) else name


def _figures(dense: CellResult | None, pruned: CellResult | None) -> list[str]:
    if pruned is None:
        return ["No figures were measured.\n"]
    rows = [("sparsity of the decoder blocks", "0", f"{pruned.sparsity:.4f}")]
    if pruned.relative_error is not None:
        rows.append(("relative error of a layer, mean", "0", f"{pruned.relative_error:.4f}"))
    for text, found in pruned.perplexity.items():
        of_dense = f"{dense.perplexity[text].value:.2f}" if dense and text in dense.perplexity else ""
        rows.append(
            (
                f"perplexity, {text} ({found.tokens:,} tokens in {found.windows:,} windows)",
                of_dense,
                f"{found.value:.2f}",
            )
        )
    for task, score in pruned.tasks.items():
        of_dense = f"{dense.tasks[task].acc:.3f}" if dense and task in dense.tasks else ""
        label = f"accuracy, {task} ({score.items_measured}, version {score.version})"
        rows.append((label, of_dense, f"{score.acc:.3f} ± {score.acc_stderr:.3f}"))
    return ["| | dense | pruned |\n|---|---:|---:|", *(f"| {' | '.join(map(escaped, row))} |" for row in rows), ""]


def _metadata(pruned: CellResult) -> list[EvalResult]:
    perplexities = [(text, "perplexity", found.value) for text, found in pruned.perplexity.items()]
    accuracies = [(task, "accuracy", score.acc) for task, score in pruned.tasks.items()]
    return [
        EvalResult(
            task_type="text-generation", dataset_type=name, dataset_name=name, metric_type=metric, metric_value=value
        )
        for name, metric, value in perplexities + accuracies
    ]
