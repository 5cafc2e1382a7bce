"""Prune a model in memory, look at what it cost, and save it.

    python examples/prune_a_model.py MODEL TEXT OUT

MODEL is a folder or a name on the hub, TEXT a UTF-8 file to calibrate on, OUT a new folder.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import prunelib

name, text, out = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
length = min(512, model.config.get_text_config().max_position_embeddings)
texts = [Path(text).read_text(encoding="utf-8")]

result = prunelib.prune(
    model,
    tokenizer,
    texts,
    pattern="2:4",
    warmstart="wanda",
    refiner=["sparseswaps", "refit_swaps"],  # better masks first, then better kept weights
    samples=8,
    length=length,
)
print(result)
worst = result.layers.assign(left=lambda layers: layers.error_after / layers.energy).nlargest(3, "left")
print(f"most of its output is lost in {', '.join(worst.name)}")

model.save_pretrained(f"{out}/model")
tokenizer.save_pretrained(f"{out}/model")
result.save(f"{out}/masks")
