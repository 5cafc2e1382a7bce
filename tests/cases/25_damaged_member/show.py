"""A wheel with the right hash whose member fails its checksum: a traceback of zipfile."""
import hashlib
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import verdict

from prunelib.errors import PruneError
from prunelib.sources.wheels import Wheel, read_members
from test_wheels import build_wheel

with tempfile.TemporaryDirectory() as folder:
    build_wheel(Path(folder))
    (path,) = Path(folder).glob("*.whl")
    path.write_bytes(path.read_bytes().replace(b"second", b"secund"))  # stored, not compressed: the checksum stays
    os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder}
    try:
        read_members(Wheel(requirement="tinydata==1.0", sha256=hashlib.sha256(path.read_bytes()).hexdigest()), ["*.txt"])
        print("accepted")
        fault = True
    except Exception as error:  # noqa: BLE001
        print(f"{type(error).__name__}: {error}")
        fault = not isinstance(error, PruneError)
verdict(fault, "refused in one line: the wheel's name, and the member that is damaged")
