import gzip
import json

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file of lines: a dict as JSON, bytes as they are; .gz is compressed. Returns its path."""

    def write(name: str, *lines: dict | bytes, end: bytes = b"\n"):
        data = b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + end
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write
