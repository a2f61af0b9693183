"""The JSON schema of what ``bench --json`` prints: docs/benchmarks/bench.schema.json is made of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from trio_minillm._bench.audit.audit import Audit
from trio_minillm._bench.audit.null import NullRun
from trio_minillm._bench.figures.figures import LATENCIES, Goodput
from trio_minillm._bench.figures.series import Series
from trio_minillm._bench.figures.spread import QUANTILES
from trio_minillm._bench.plan import Load
from trio_minillm._bench.run import SCHEMA
from trio_minillm._bench.steady import Steady

Schema = dict[str, Any]
NUMBER: Schema = {"type": ["number", "null"]}
TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
COUNTS: Schema = {"type": "object", "additionalProperties": COUNT}


def of(properties: dict[str, Schema], about: str = "", *, optional: tuple[str, ...] = ()) -> Schema:
    """An object that has all of these and nothing else."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {"description": about, **schema} if about else schema


def listed(items: Schema, about: str = "") -> Schema:
    return {**({"description": about} if about else {}), "type": "array", "items": items}


def told(schema: Schema, about: str) -> Schema:
    return {"description": about, **schema}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [{"type": "null"}, schema]}


def ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


INTERVAL: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
SPREAD = of(
    {
        "count": COUNT,
        **dict.fromkeys(("mean", "std", "min", *QUANTILES, "max"), NUMBER),
        "intervals": told(
            {"type": "object", "additionalProperties": INTERVAL},
            "bounds at 95 % confidence, by the name of the figure",
        ),
        "estimated": told({"type": "boolean"}, "true if the values rest on an assumption"),
        "relative_error": told({"type": "number"}, "of the percentiles; 0 is exact"),
    },
    "A distribution. Times are seconds; null is a figure that there are no values for.",
)
FAILURE = of(
    {
        "outcome": TEXT,
        "type": {"type": "string"},
        "kind": TEXT,
        "status": {"type": ["integer", "null"]},
        "code": TEXT,
        "clock": TEXT,
        "count": COUNT,
        "example": {"type": "string"},
    },
    "Failures that are alike, and the message of one of them.",
)
RATES = (
    *("requests", "chunks", "output_tokens", "input_tokens"),
    *("output_tokens_per_user", "decode_tokens_per_user"),
)
FIGURES: dict[str, Schema] = {
    "counts": of(
        {
            "sent": COUNT,
            "outcomes": told(COUNTS, "requests by outcome"),
            "finish_reasons": told(COUNTS, "whole answers by finish reason"),
            "chunks": COUNT,
            "together": of(
                {
                    "contents": COUNT,
                    "answers": told(COUNT, "answers that have such contents"),
                    "beginnings": told(COUNT, "answers of which the first content is one of them"),
                },
                "contents that came in one read with the one before",
            ),
            "empty": told(COUNT, "whole answers without content"),
            "retries": COUNT,
        }
    ),
    "latency": of({name: told(ref("spread"), about) for name, about in LATENCIES.items()}),
    "window": told(NUMBER, "seconds from the first request to the last content of a whole answer"),
    "rates": of(dict.fromkeys(RATES, NUMBER), "per second of the window"),
    "tokens": told(maybe(COUNTS), "sums over the answers that came with usage"),
    "failures": listed(ref("failure"), "the commonest first"),
    "cost": told(TEXT, "USD by the answers, exactly"),
    "costs": of(dict.fromkeys(("per_million_output_tokens", "per_good_answer"), NUMBER), "USD"),
    "goodput": told(maybe(ref("Goodput")), "with limits"),
    "series": told(maybe(ref("Series")), "the course of the run"),
}
COST = of(
    {
        "amount": TEXT,
        "at_least": {"type": "boolean"},
        "resolutions": COUNTS,
        "not_booked": {"type": "string"},
        "warmup": {"type": "string"},
    },
    "USD by the ledger, settled afterwards where the provider can be asked.",
)
POINT = of(
    {
        "load": ref("load"),
        "seed": told({"type": "integer"}, "of what was drawn at random for it"),
        **FIGURES,
        "warmup": maybe(of({"sent": COUNT, "finished": COUNT, "failures": listed(ref("failure"))})),
        "alone": told(maybe(of(FIGURES)), "with --hedge: the requests to the first model alone"),
        "steady": told(maybe(ref("Steady")), "the steady state, if one was looked for"),
        "audit": told(ref("Audit"), "whether the client itself was the limit"),
        "notes": listed({"type": "string"}, "what qualifies the figures"),
    },
    "The figures of one load.",
)
HEDGE = of(
    {
        "model": {"type": "string"},
        "after": {"type": "number"},
        "requests": COUNT,
        "lost": COUNT,
        "lost_cost": TEXT,
        "lost_at_least": {"type": "boolean"},
        "cost_alone": ref("cost"),
    },
    "With --hedge: what the second model added.",
)


def schema() -> Schema:
    """The whole schema."""
    (load, *_), defs = msgspec.json.schema_components(
        (Load, Goodput, Series, Steady, Audit, NullRun), ref_template="#/$defs/{name}"
    )
    for name in ("ttft", "e2e", "arrival", "itl"):  # told as other distributions are
        defs["NullRun"]["properties"][name] = ref("spread")
    defs.pop("Spread", None)
    defs["Audit"]["properties"]["null"] = maybe(ref("NullRun"))
    for one in (found for found in defs.values() if found["type"] == "object"):
        one["additionalProperties"] = False
        one.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The results of trio-minillm bench",
        **of(
            {
                "schema": {"const": SCHEMA},
                "version": told({"type": "string"}, "version of trio-minillm"),
                "at": {"type": "string", "format": "date-time"},
                "config": told({"type": "object"}, "the options: no key, no prompt"),
                "points": listed(ref("point"), "one for each load, in the order in which they ran"),
                "found": told({"type": ["object", "null"]}, "the outcome of a search"),
                "cost": ref("cost"),
                "hedge": ref("hedge"),
                "error": told({"type": ["object", "null"]}, "why it could not be carried out"),
                "exit_code": {"type": "integer"},
            },
            optional=("cost", "hedge"),
        ),
        "$defs": {
            "spread": SPREAD,
            "failure": FAILURE,
            "cost": COST,
            "point": POINT,
            "hedge": HEDGE,
            "load": load,
            **defs,
        },
    }


def schema_text() -> str:
    """The page docs/benchmarks/bench.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def check(found: dict[str, Any]) -> None:
    """Fail if this is not of that form. Without jsonschema nothing is checked."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        return
    errors = list(Draft202012Validator(schema()).iter_errors(found))
    assert not errors, "\n".join(f"{error.json_path}: {error.message}" for error in errors)
