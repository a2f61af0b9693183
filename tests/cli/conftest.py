"""Fixtures of several tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as made:
        yield made
