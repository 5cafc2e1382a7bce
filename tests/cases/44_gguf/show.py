"""GGUF files as people have them: ``python show.py [scale rotary experts window order merge heads shard]``."""
import functools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import gguf
import numpy as np
from tiny import verdict

from prunelib.errors import PruneError
from prunelib.sources.gguf import convert
from safetensors.numpy import load_file
from gguf_files import HEAD_DIM, MERGES, METADATA, gguf_tensors, tiny_llama, write_gguf

MODEL = tiny_llama(tied=True)
VALUES = MODEL.model.layers[0].self_attn.v_proj.weight.detach().numpy().copy()
BIG = functools.partial(gguf.GGUFWriter, endianess=gguf.GGUFEndian.BIG)
LINEAR = {"rope_type": "linear", "factor": 4.0}
CASES = {  # what the file has, what makes a conversion right, what a refusal says
    "scale": ({"llama.rope.scaling.factor": 4.0}, lambda config, _: LINEAR.items() <= config["rope_parameters"].items(), ""),
    "rotary": ({"llama.rope.dimension_count": HEAD_DIM // 2}, lambda config, _: "partial_rotary_factor" in str(config), ""),
    "experts": ({"llama.expert_count": 8, "llama.expert_used_count": 2}, lambda config, _: False, ""),
    "window": ({"llama.attention.sliding_window": 16}, lambda config, _: "sliding_window" in config, ""),
    "order": ({}, lambda _, weights: np.array_equal(weights["model.layers.0.self_attn.v_proj.weight"], VALUES), ""),
    "merge": ({"tokenizer.ggml.merges": [*MERGES, "q q"]}, lambda config, _: False, ""),
    "heads": ({"llama.attention.head_count": 0}, lambda config, _: False, ""),
    "shard": ({"split.no": 0, "split.count": 2, "split.tensors.count": 20}, lambda config, _: False, "split"),
}
faults = []
for name in sys.argv[1:] or CASES:
    changes, is_right, says = CASES[name]
    tensors = {key: (value.copy(), kind) for key, (value, kind) in gguf_tensors(MODEL).items()}
    tensors = dict(list(tensors.items())[:10]) if name == "shard" else tensors
    with tempfile.TemporaryDirectory() as folder:
        writer, gguf.GGUFWriter = gguf.GGUFWriter, BIG if name == "order" else gguf.GGUFWriter
        file = write_gguf(Path(folder) / "tiny.gguf", {**METADATA, **changes}, tensors)
        gguf.GGUFWriter = writer
        try:
            convert(file, Path(folder))
            config = json.loads((Path(folder) / "config.json").read_text())
            faults.append(not is_right(config, load_file(Path(folder) / "model.safetensors")))
            print(f"{'FAULT' if faults[-1] else 'right'}  {name}: converted, rope {config['rope_parameters']}")
        except Exception as error:  # noqa: BLE001
            faults.append(not isinstance(error, PruneError) or says not in str(error))
            print(f"{'FAULT' if faults[-1] else 'right'}  {name}: {type(error).__name__}: {str(error)[:120]}")
verdict(any(faults), "the table of README.md")
