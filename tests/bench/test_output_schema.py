"""The form of the JSON: docs/bench.schema.json is made of it.

``TRIO_MINILLM_WRITE=1 python -m pytest tests/bench/test_output_schema.py`` writes it anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ..support.bench_schema import check, schema_text
from ..support.paths import DOCS

PAGE = Path(DOCS) / "bench.schema.json"


def test_the_page_is_the_schema() -> None:
    if os.environ.get("TRIO_MINILLM_WRITE"):
        PAGE.write_text(schema_text(), "utf-8")
    assert PAGE.read_text("utf-8") == schema_text()


def test_the_schema_is_one() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the extra [schemas]")
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))
    with pytest.raises(AssertionError, match="'schema' is a required property"):
        check({})
