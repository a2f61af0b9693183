"""Settings and fixtures that apply to all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import hypothesis
import pytest

# A time is no property of the code: on a busy machine an example may take any.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> Iterator[None]:
    """Keep objects that exist before a module's tests out of the garbage collector's way.

    Some tests call the collector very often, and ten thousand tests are a heap that takes half a
    second to walk.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
