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
            "95 % confidence intervals, by the name of the figure",
        ),
        "estimated": told({"type": "boolean"}, "true if the values rest on an assumption"),
        "relative_error": told({"type": "number"}, "relative error of the percentiles; 0 is exact"),
    },
    "A distribution. Times are seconds; a figure without values is null.",
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
    "Failures of one kind, with one of their messages.",
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
            "finish_reasons": told(COUNTS, "complete answers by finish reason"),
            "chunks": COUNT,
            "together": of(
                {
                    "contents": COUNT,
                    "answers": told(COUNT, "answers with such chunks"),
                    "beginnings": told(COUNT, "answers whose first chunk is one of them"),
                },
                "chunks that arrived in the same read as the one before",
            ),
            "empty": told(COUNT, "complete answers without content"),
            "retries": COUNT,
        }
    ),
    "latency": of({name: told(ref("spread"), about) for name, about in LATENCIES.items()}),
    "window": told(NUMBER, "seconds from the first request to the last chunk of a complete answer"),
    "rates": of(dict.fromkeys(RATES, NUMBER), "per second of the window"),
    "tokens": told(maybe(COUNTS), "sums over the answers with usage"),
    "failures": listed(ref("failure"), "most common first"),
    "cost": told(TEXT, "USD, exact, from the answers"),
    "costs": of(dict.fromkeys(("per_million_output_tokens", "per_good_answer"), NUMBER), "USD"),
    "goodput": told(maybe(ref("Goodput")), "null without limits"),
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
    "USD from the ledger, with the final cost where the provider can be asked.",
)
POINT = of(
    {
        "load": ref("load"),
        "seed": told({"type": "integer"}, "seed of its random numbers"),
        **FIGURES,
        "warmup": maybe(of({"sent": COUNT, "finished": COUNT, "failures": listed(ref("failure"))})),
        "alone": told(maybe(of(FIGURES)), "with --hedge: the requests to the first model only"),
        "steady": told(maybe(ref("Steady")), "the steady state, if requested"),
        "audit": told(ref("Audit"), "whether the client was the limit"),
        "notes": listed({"type": "string"}, "caveats about the figures"),
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
                "config": told({"type": "object"}, "the options, without keys and prompts"),
                "points": listed(ref("point"), "one per load, in the order in which they ran"),
                "found": told({"type": ["object", "null"]}, "the result of --find"),
                "cost": ref("cost"),
                "hedge": ref("hedge"),
                "error": told(
                    {"type": ["object", "null"]}, "why the benchmark could not be carried out"
                ),
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
