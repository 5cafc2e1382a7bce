"""Wheels of a few bytes, as an index in a folder has them."""

import hashlib
import zipfile

MEMBERS = {"tiny/b.txt": b"second", "tiny/a.txt": b"first", "tiny/deep/c.md": b"third"}


def build_wheel(folder, tags="py3-none-any", name="tinydata", members=None):
    """Write a wheel; the hash of its file."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-{tags}.whl"
    files = {
        **(members or MEMBERS),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n".encode(),
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file), content)
    return hashlib.sha256(path.read_bytes()).hexdigest()
