"""Whether files stayed as they are."""

import hashlib


def checksums(folder):
    """Of each file of the stores in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".zarr" in str(path))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
