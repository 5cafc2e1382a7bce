"""``apply`` refuses the very dense model when its folder holds a further weights file, as published folders do."""
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import character_tokenizer, verdict

from families import save, tiny_model
from prunelib.cli.apply import apply
from prunelib.errors import PruneError
from prunelib.masks.patterns import NOfM, select
from prunelib.masks.pruned import Pruned, write_pruned
from prunelib.model.structure import find_layers
from prunelib.model.weights import read_weight
from prunelib.sources import fetch_model
from prunelib.sources.models import LocalModel
from prunelib.sources.provenance import model_identity

with tempfile.TemporaryDirectory() as folder:
    model, dense, taken = tiny_model("llama"), Path(folder) / "dense", Path(folder) / "taken"
    save(model, dense)
    character_tokenizer().save_pretrained(dense)
    shutil.copy(dense / "model.safetensors", dense / "consolidated.safetensors")
    taken.mkdir()
    fetch_model(LocalModel(path=dense), taken)
    masks = {layer.name: select(read_weight(dense, layer).abs(), NOfM(keep=2, group=4)) for layer in find_layers(model, dense).layers}
    methods = {"pattern": {"kind": "n_of_m"}, "warmstart": {"method": "wanda"}, "refiner": {"method": "none"}}
    made_from = {"model": model_identity(taken), "tokens": "t", "calibration": {}}
    write_pruned(Path(folder) / "cell", Pruned(masks, {}), {**made_from, **methods})
    try:
        apply(dense, Path(folder) / "cell", Path(folder) / "pruned")
        print("applied")
        fault = False
    except PruneError as error:
        print(f"refused: {str(error).replace(folder, '...')}")
        fault = True
verdict(fault, "applied: identity is over the files that are the model, on both sides the same ones")
