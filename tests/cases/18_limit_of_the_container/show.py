"""A container's memory limit is read from cgroup v2 alone; under v1 nothing is refused, and the kernel kills.

The files of a v1 container limited to 250 MB, of which 100 are used. Seen on a machine: free_memory said 16.8 GB.
"""
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import verdict

from prunelib.planning import capacity

with tempfile.TemporaryDirectory() as folder:
    group = Path(folder) / "memory"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("250000000\n")
    (group / "memory.usage_in_bytes").write_text("100000000\n")
    (group / "memory.stat").write_text("total_inactive_file 0\n")
    capacity._CONTAINER = Path(folder)
    free = capacity.free_memory()
print(f"free_memory says {free / 1e6:,.0f} MB")
verdict(free > 150e6, "at most 150 MB. The same for cores: a quota of CPU time is a limit too, not the affinity alone")
