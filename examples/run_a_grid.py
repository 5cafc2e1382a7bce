"""Change the grid of a project and run it: what is up to date is not run again.

    python examples/run_a_grid.py          # in the folder of params.yaml

Prints the stages as they run, then the main figures: a line for the dense model, and one for each cell at 1:4.
"""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

yaml, path = YAML(), Path("params.yaml")
params = yaml.load(path)
params["patterns"]["nm14"] = {"kind": "n_of_m", "keep": 1, "group": 4}  # comments and order stay as they are
params["grid"]["patterns"] = ["nm14"]
yaml.dump(params, path)
sys.exit(subprocess.run([sys.executable, "-m", "prunelib", "run"], check=False).returncode)
