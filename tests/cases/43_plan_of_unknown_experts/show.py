"""plan on the published DeepSeek-V3, a family without a rule: taken for a Llama, its 256 experts left out, "it fits"."""
import os
import re
import subprocess
import sys
from pathlib import Path

words = [sys.executable, "-m", "prunelib", "plan", "--config", str(Path(__file__).with_name("config.json"))]
done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
print(f"plan: exit {done.returncode}, {(done.stdout + done.stderr).strip().splitlines()[0]}")
found = re.search(r"([\d.]+) of ([\d.]+) billion", done.stdout)
fault = "Traceback" in done.stderr or bool(found) and float(found[2]) < 600
print("right: 669 of 671 billion, 1.34 TB in bfloat16; or no figures at all where a config names experts, states or kinds of\n"
      "layers that no rule here knows\n" + ("FAULT" if fault else "fixed"))
sys.exit(int(fault))
