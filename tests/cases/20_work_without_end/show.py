"""Numbers that nobody means are worked on for ever, instead of being refused."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import CALIBRATE, DOWNLOADS, last, run, system, tiny_project, verdict

SMALL = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)"
SPARSEFW = """
import torch
from prunelib import PerRow, SparseFW, gram_matrix, select, sparsefw, wanda
torch.manual_seed(0)
weight, gram, pattern = torch.randn(2, 64), gram_matrix(torch.randn(500, 64) @ torch.randn(64, 64)), PerRow(sparsity=0.5)
try:
    sparsefw(weight, gram, select(wanda(weight, gram), pattern), pattern, SparseFW(damping=1e36))
except ValueError as error:
    print("refused:", str(error).splitlines()[0])
"""
faults = []
with tiny_project() as project:
    config = json.loads((project.folder / "given" / "model" / "config.json").read_text())
    (project.folder / "blocks.json").write_text(json.dumps({**config, "num_hidden_layers": 10**9}))
    status, said = run(project, *DOWNLOADS)
    assert status == 0, said
    project.edit("calibration.draw", "documents")
    project.edit("calibration.samples", 10**9)
    for what, (status, said) in {
        "plan of 10**9 blocks": run(project, ["prunelib", "plan", "--config", "blocks.json"], before=SMALL, timeout=40),
        "10**9 windows out of documents": run(project, CALIBRATE, before=SMALL, timeout=40),
        "Frank-Wolfe with a damping of 1e36": system(project, sys.executable, "-c", SPARSEFW, timeout=40),
    }.items():
        faults.append(status == "no end" or "Traceback" in said)
        print(f"{what}: {status if status == 'no end' else f'exit {status}'}, {last(said)[:120]}")
verdict(any(faults), "refused in one line within seconds: sizes are bounded by what is there (tensors, memory, text), "
        "and a loop that float32 cannot carry has an end")
