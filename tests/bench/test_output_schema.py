"""The form of the JSON: docs/benchmarks/bench.schema.json is made of it.

``TRIO_MINILLM_WRITE=1 python -m pytest tests/bench/test_output_schema.py`` writes it anew.
"""

from __future__ import annotations

import json
import os
import re

import msgspec
import pytest

from trio_minillm._bench.record import Record

from ..support.bench_schema import check, schema_text
from ..support.paths import doc

PAGE = doc("bench.schema.json")


def test_the_page_is_the_schema() -> None:
    if os.environ.get("TRIO_MINILLM_WRITE"):
        PAGE.write_text(schema_text(), "utf-8")
    assert PAGE.read_text("utf-8") == schema_text()


def test_the_page_has_every_field_of_a_record() -> None:
    section = doc("bench-output.md").read_text("utf-8").partition("## Record every request\n")[2]
    names = set(re.findall(r"`([a-z_]+)`", section.partition("In JSON lines")[0]))
    assert {field.name for field in msgspec.structs.fields(Record)} | {"point"} <= names


def test_the_schema_is_one() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the extra [schemas]")
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))
    with pytest.raises(AssertionError, match="'schema' is a required property"):
        check({})
