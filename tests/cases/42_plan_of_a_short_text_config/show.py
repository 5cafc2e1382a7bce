"""plan on the published Gemma-3-4b, whose text_config leaves out what equals transformers' defaults."""
import os
import re
import subprocess
import sys
from pathlib import Path

words = [sys.executable, "-m", "prunelib", "plan", "--config", str(Path(__file__).with_name("config.json"))]
done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
print(f"plan: exit {done.returncode}, {(done.stdout + done.stderr).strip().splitlines()[0]}")
found = re.search(r"(\d+) blocks; ([\d.]+) of ([\d.]+) billion", done.stdout)
fault = not found or found.groups() != ("34", "3.21", "3.88")
print("right: 34 blocks; 3.21 of 3.88 billion weights prunable (8 heads of 256, 4 key heads, 262,208 words): every number that\n"
      "a family's config may leave out has the family's own default\n" + ("FAULT" if fault else "fixed"))
sys.exit(int(fault))
