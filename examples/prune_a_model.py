"""Prune a model in memory, look at what it cost, and save it.

    python examples/prune_a_model.py MODEL TEXT OUT

MODEL is a folder or a name on the hub, TEXT a UTF-8 file to calibrate on, OUT a new folder.

Prints, on a tiny random model:

    14 layers
              weights  kept  error_before  error_after seconds reduction
    kind
    q_proj      2,048 1,024          1017        92.76     0.0     90.9%
    k_proj      1,024   512         506.3        51.53     0.0     89.8%
    v_proj      1,024   512         539.2        52.71     0.0     90.2%
    o_proj      2,048 1,024         268.9        15.36     0.0     94.3%
    gate_proj   3,072 1,536          1965        255.5     0.0     87.0%
    up_proj     3,072 1,536          1804        202.1     0.0     88.8%
    down_proj   3,072 1,536         212.2        52.59     0.0     75.2%
    all        15,360 7,680          6312        722.5     0.1     88.6%
    most of its output is lost in model.layers.1.mlp.gate_proj, model.layers.1.self_attn.k_proj, ...
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
