"""Tests of the rules, the same for every server, by which a refusal gets its meaning and message.

What known servers send, each in its own words, is in `tests.support.servers.refusals`. Here are the
rules between them: which evidence is stronger, that a cause is found at any depth, and that nothing
of the request is shown.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._types.errors import EXCERPT_CHARS
from trio_minillm.batch import BatchRequest
from trio_minillm.providers import complaint_in, error_from, error_info
from trio_minillm.providers._error_kinds import says_absent

from ..support.servers.refusals import meet

SPENT = "You exceeded your current quota, please check your plan and billing details."


def kind(body: Any, status: int | None = 429, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_info(status, json.dumps(body).encode(), named).kind


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("field", ["code", "status", "status_code"])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Something went wrong. Please try again later.", "server"),
        ("Not ready. Retry the request after a few seconds", "rate_limit"),
        ("The replica is not there yet, try again in 5 seconds", "rate_limit"),
        ("No such field. Correct it and retry after that", "invalid"),
        ("No such field, internal error", "invalid"),
    ],
)
def test_a_status_in_a_gateway_s_500_holds_unless_it_asks_to_come_back(
    status: int, field: str, words: str, found: str
) -> None:
    assert kind({"error": {"message": words, field: status}}, 500) == found
    assert kind({"error": {"message": words, field: 429}}, 500) == "rate_limit"


def said(message: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, **more}}


# -- which evidence is stronger ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "window",
    [
        *("per minute", "per second", "per hour", "(TPM)", "/min", "in 60 s", "every 10 seconds"),
        *("for this minute", "(minute quota)", "until the next hour", "in 12 hours", "per 3600s"),
    ],
)
@pytest.mark.parametrize("code", [None, "token_quota_exceeded", "quota_exceeded", "usage_limit"])
@pytest.mark.parametrize("status", [429, 403, None])
def test_a_short_window_is_a_rate_whatever_it_is_called(
    window: str, code: str | None, status: int | None
) -> None:
    assert kind(said(f"The token quota is exceeded {window}", code), status) == "rate_limit"


@pytest.mark.parametrize(
    "window",
    [
        *("per day", "per month", "(RPD)", "/ month", "per week"),
        *("per 24 hours", "per 86400s", "in the last 7 days", "of today's quota"),
    ],
)
@pytest.mark.parametrize("code", [None, "token_quota_exceeded", "rate_limit_exceeded"])
def test_a_long_window_is_a_quota_unless_a_wait_is_named(window: str, code: str | None) -> None:
    words = f"Too many tokens {window}."
    assert kind(said(words, code)) == "quota"
    assert kind(said(f"{words} Please try again in 12m30s", code)) == "rate_limit"
    assert kind(said(words, code), retry_after="750") == "rate_limit"


@pytest.mark.parametrize("status", [403, 429, None])
@pytest.mark.parametrize(
    "words",
    [
        "You've reached kimi-for-coding's usage limit for this period. Upgrade to get more",
        "usage limit exceeded, 5-hour usage limit reached for Token Plan Starter (0/0 used)",
        "You've hit your usage limit. Upgrade to Pro",
        "You've reached your weekly (7-day) usage limit.",
    ],
)
def test_a_plan_s_limit_is_a_quota_though_its_type_is_a_rate_limit_s(
    words: str, status: int | None
) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": words}}
    assert kind(body, status) == "quota"
    assert kind({"error": {"message": f"{words}. Try again in 40 s"}}) == "rate_limit"


def test_words_between_may_be_names_of_models_and_owners() -> None:
    assert kind(said("You have exceeded today's quota for model x, try it tomorrow")) == "quota"
    assert kind(said("You exceeded x-7b's monthly free-tier quota")) == "quota"
    assert kind(said("Infrastructure is at maximum capacity, try again later")) == "overloaded"
    assert kind({"code": 11202, "message": "licc limit: AppIdQpsOverFlow"}, None) == "rate_limit"


@pytest.mark.parametrize(("value", "found"), [("0", "quota"), (0, "quota"), ("15", "rate_limit")])
def test_a_limit_of_nothing_is_a_quota(value: Any, found: str) -> None:
    violation = {"quotaMetric": "input_tokens", "quotaId": "PerMinute", "quotaValue": value}
    failed = {"@type": "type.googleapis.com/google.rpc.QuotaFailure"}
    details = [failed | {"violations": ["odd", violation]}]
    assert kind(said("Resource exhausted.", status="RESOURCE_EXHAUSTED", details=details)) == found


@pytest.mark.parametrize(
    "body",
    [
        said(SPENT),
        said(SPENT, "quota_exceeded"),
        said("The usage limit is reached", "usage_limit_reached"),
    ],
)
def test_a_throttle_that_says_when_to_come_back_is_no_empty_account(body: Any) -> None:
    assert kind(body) == "quota"
    assert kind(body, retry_after="3") == "rate_limit"
    assert kind(body, retry_after_ms="300") == "rate_limit"
    assert kind(body, x_ratelimit_remaining_tokens="0") == "rate_limit"
    assert kind(body, x_ratelimit_remaining_tokens="12") == "quota"
    body["error"]["retry_after"] = 3
    assert kind(body) == "rate_limit"


@pytest.mark.parametrize(
    ("status", "words", "found"),
    [
        # Minutes in a refusal of the key are no rate.
        (403, "It is disabled. If you enabled it, wait a few minutes and retry.", "auth"),
        (403, "Model access is denied. Try again after 2 minutes.", "auth"),
        (403, "This method requires billing to be enabled. Wait a few minutes.", "quota"),
        (403, "temporarily disabled due to a rate limit of 0, retry in 5 minutes", "auth"),
        (403, "Rate limit exceeded: 20 requests per minute", "rate_limit"),
        # Advice to pay more for a higher rate is no empty account.
        (429, "Free tier rate limit exceeded. Please wait or upgrade.", "rate_limit"),
        (429, "Too many requests. Please upgrade your plan.", "rate_limit"),
        (429, "Rate limit exceeded. Please top up your account to continue.", "quota"),
        (429, "Rate limited: trial expired, please recharge", "quota"),
        (429, "Too large. Tokens must be reduced in order to run. See /rate-limits", "invalid"),
        (429, "Too many requests: prompt is too long for this model", "invalid"),
        (403, "RPM limit exceeded. Please complete identity verification", "rate_limit"),
        (403, "Concurrency limit exceeded for account, please retry later", "rate_limit"),
        (429, "Rate limit: your balance is too low", "quota"),
        # A server that fails is not one that can't.
        (500, "Unable to process tool call: internal error, please retry", "server"),
        (500, "The server could not process the image due to an internal error", "server"),
        (500, "Request timed out: limit is 600 seconds, request was 601 seconds", "server"),
        (500, "this model does not support image input", "invalid"),
        (
            503,
            "Overloaded. Please try again later or reduce the length of the prompt",
            "overloaded",
        ),
        # A request that is refused behind a failure of the server's own.
        (500, "Conversation roles must alternate user/assistant/user/assistant/...", "invalid"),
        (500, "litellm.BadRequestError: OpenAIException - bad field", "invalid"),
        (500, "litellm.RateLimitError: slow", "rate_limit"),
        (499, "The operation was cancelled.", "server"),
        # … and in a stream, or under HTTP 200.
        (None, "litellm.BadRequestError: OpenAIException - bad field", "invalid"),
        (None, "litellm.NotFoundError: no", "invalid"),
        (None, "litellm.RateLimitError: slow", "rate_limit"),
        (None, "RuntimeError: CUDA out of memory", "server"),
        (None, "model 'x' not found", "invalid"),
        (None, "The model `x` does not exist", "invalid"),
        (None, "Not Found", "invalid"),
        (None, "Unexpected endpoint or method. (POST /chat/completions)", "invalid"),
        (None, "Output data may contain inappropriate content.", "invalid"),
        (None, "无效的令牌", "auth"),
        (None, "The model crashed: internal server error", "server"),
        (500, "1 validation error for ChatCompletionStreamResponse", "server"),
        (500, "bad request: connection reset", "server"),
        (500, "invalid model output: failed to parse tool call", "server"),
        (500, "Engine 3 died; model not found in registry", "server"),
        (None, "model 'x' is not served by any running worker at the moment", "server"),
        (None, "Unprocessable chunk received from upstream", "server"),
    ],
)
def test_words_are_weighed_by_the_status(status: int | None, words: str, found: str) -> None:
    assert kind(said(words), status) == found


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only 1 is.",
        "Invalid value: 'toolx'. Supported values are: 'auto' and 'none'.",
        'Error from upstream: {"model": "x", "error": "Insufficient Balance"}',
    ],
)
def test_words_that_only_look_like_a_request_are_shown(words: str) -> None:
    info = error_info(400, json.dumps(said(words)).encode())
    assert info.message.startswith(words)


@pytest.mark.parametrize(
    ("status", "words", "found"),
    [
        (400, 'Error from upstream: {"model": "x", "error": "Insufficient Balance"}', "quota"),
        (500, 'Upstream answered {"prompt": 3, "error": "rate limit exceeded"}', "rate_limit"),
        (None, '{"model":"gpt","error":"invalid api key"}', "auth"),
        (500, "Invalid request to upstream, content policy server unreachable", "server"),
        (500, "Internal Server Error: upstream returned status 404", "server"),
        (500, "The model does not exist on this replica yet: rolling update", "server"),
    ],
)
def test_an_upstream_is_heard_through_its_gateway(
    status: int | None, words: str, found: str
) -> None:
    assert kind(said(words), status) == found


FILTERED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry."


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("429 Resource exhausted. Please try again later.", "rate_limit"),
        (
            "Error code: 429 - {'error': {'message': 'Resource exhausted. Try again later.'}}",
            "rate_limit",
        ),
        (
            "Error code: 404 - {'error': 'The model is unavailable for free. Use this slug instead'}",
            "invalid",
        ),
        ("Error code: 400 - {'error': \"Unknown parameter: 'max_retry'.\"}", "invalid"),
        (
            "Error code: 400 - {'error': 'Could not process image, please try again with another'}",
            "invalid",
        ),
        ("Error code: 401 - {'error': 'Invalid token (request id: x). Please retry'}", "auth"),
        ("Error code: 402 - {'error': 'retry with fewer max_tokens'}", "quota"),
        ("Error code: 404 - {'error': 'model busybox-1 does not exist'}", "invalid"),
        ("Error code: 400 - {'error': 'Something went wrong. Please try again later.'}", "server"),
        ("litellm.BadRequestError: No healthy deployment, Try again in 5 seconds", "rate_limit"),
        ("Error code: 400 - {'error': 'upstream connect error, reset before headers'}", "server"),
        ("litellm.BadRequestError: litellm.ContentPolicyViolationError: " + FILTERED, "invalid"),
        (FILTERED, "invalid"),
        (
            "It was flagged by our content policy. Please try again with a different prompt.",
            "invalid",
        ),
    ],
)
def test_a_gateway_s_500_is_what_its_upstream_s_words_say(words: str, found: str) -> None:
    assert kind(said(words), 500) == found


@pytest.mark.parametrize("code", ["content_filter", "invalid_prompt", "content_policy_violation"])
@pytest.mark.parametrize("status", [500, 403, 400, None])
def test_content_that_a_filter_refuses_is_refused_for_good(code: str, status: int | None) -> None:
    for words in (FILTERED, "Flagged. Please try again with a different prompt", "No credits used"):
        assert kind({"error": {"message": words, "code": code}}, status) == "invalid"


@pytest.mark.parametrize("status", [400, 403, 424, 446, 500, None])
@pytest.mark.parametrize(
    "words",
    [
        "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        "Content blocked: keyword 'x' detected",
        "Prompt blocked due to security configurations",
        "Your input was flagged. No credits were charged. Try again with another prompt",
        "The request was blocked by guardrails",
        "Blocked by the provider's content filter",
        "Violated guardrail policy",
        "Request failed content safety check.",
        "GuardrailRaisedException: Guardrail raised an exception, Message: not allowed here",
        "The guardrail checks defined in the config failed.",
    ],
)
def test_words_that_name_what_a_filter_refuses_are_not_about_the_key(
    words: str, status: int | None
) -> None:
    info = error_info(status, json.dumps(said(words)).encode())
    assert (info.kind, info.retryable) == ("invalid", False)


@pytest.mark.parametrize(
    "words",
    [
        "Request blocked.",
        "Sorry, you have been blocked",
        "Access to this site is blocked by policy",
        "Your account has been suspended: its content violates our terms",
        "Your account was flagged for abuse",
        "Access to the model is blocked by your administrator",
    ],
)
def test_who_is_locked_out_needs_another_key(words: str) -> None:
    assert kind(said(words), 403) == "auth"


@pytest.mark.parametrize(
    ("status", "words", "found"),
    [
        (500, "The content filter timed out; the response was not blocked", "server"),
        (500, "The guardrail failed to respond", "server"),
        (
            403,
            "x/y requires moderation on Z. Your input was flagged. No credits were charged.",
            "invalid",
        ),
        (403, "Your account was flagged for abuse", "auth"),
        (400, "'insufficient balance'", "quota"),
        (400, "bad value 'insufficient balance'", "invalid"),
        (403, "Endpoint x is disabled due to a rate limit set to 0.", "auth"),
        (424, "Request failed during generation: Server error: CUDA out of memory", "server"),
        (424, "The system encountered an unexpected error. Try your request again.", "server"),
        (None, "Access token invalid or no longer valid", "auth"),
        (None, "AppIdNoAuthError:(11200)", "auth"),
    ],
)
def test_small_words_of_large_houses(status: int | None, words: str, found: str) -> None:
    assert kind(said(words), status) == found


@pytest.mark.parametrize("status", [500, None])
@pytest.mark.parametrize(
    ("error", "found"),
    [
        ({"code": "content_filter"}, "invalid"),
        ({"code": "data_inspection_failed"}, "invalid"),
        ({"code": "model_not_supported"}, "invalid"),
        ({"code": "1301"}, "invalid"),
        ({"code": 1211}, "invalid"),
        ({"code": 20012}, "invalid"),
        ({"type": "auth_error", "code": "500"}, "auth"),
        ({"type": "NotFoundError", "code": 404}, "invalid"),
        ({"type": "invalid_request_error", "code": "unsupported_parameter"}, "invalid"),
        ({"type": "server_error", "code": "x"}, "server"),
        ({"type": "server_error", "code": "invalid_request_error"}, "server"),
        ({"type": "internal_server_error", "code": "server_error"}, "server"),
        ({"code": 499}, "server"),
    ],
)
def test_codes_count_more_than_a_status_of_failure(
    error: dict[str, Any], found: str, status: int | None
) -> None:
    assert kind({"error": {"message": "m", **error}}, status) == found


def test_a_terminated_account_is_not_a_rate_and_a_used_up_cycle_is_a_quota() -> None:
    kept = said("Your access was terminated: it violates our policies", type="access_terminated")
    assert kind(kept) == "auth"
    cycle = said("You have reached your usage limit for this cycle", type="access_terminated_error")
    assert kind(cycle) == "quota"


def test_details_that_repeat_the_message_are_not_said_again() -> None:
    """As Google does; a place in them, or another word, is news."""
    key = "API key not valid."
    details = [{"reason": "API_KEY_INVALID"}, {"locale": "en-US", "message": key}]
    error = {"code": 400, "message": key, "details": details}
    assert error_info(400, json.dumps({"error": error}).encode()).message == (
        "API key not valid. (API_KEY_INVALID)"
    )
    faults = [{"loc": ["body", "n"], "msg": key}, {"loc": ["body", "m"], "msg": "Too long."}]
    body = json.dumps({"message": key, "errors": faults}).encode()
    assert error_info(400, body).message == "API key not valid. (body.n; body.m: Too long.)"


SECRET = "the secret of the prompt"


def test_a_number_that_was_sent_is_not_shown() -> None:
    literal = "[{'loc': ('body', 'age'), 'msg': 'no', 'input': 4711, 'more"  # cut off
    assert "4711" not in error_info(422, json.dumps(said(literal)).encode()).message


def said_in(body: Any) -> str:
    """Return the error of a gateway that quotes a body as text."""
    return json.dumps({"error": {"message": f"upstream: {json.dumps(body)}"}})


@pytest.mark.parametrize(
    "body",
    [
        f"Extra inputs are not permitted, field: 'messages[8].reasoning', value: '{SECRET}'",
        f'Invalid request: {{"messages":[{{"role":"user","content":"{SECRET}"}}]}}',
        f'Invalid request: {{"messages":[{{"content":"{SECRET}","role":"user"}}]}}',
        f'<html><title>400</title>bad: {{"messages":[{{"content":"{SECRET}"}}]}}</html>',
        f'{{"error":{{"message":"no: {{\\"content\\": \\"{SECRET}\\"}}"}}}}',
        f"{{\"error\":\"no: {{'prompt': '{SECRET}'\"}}",
        f'bad: {{"model":"x","prompt":"{SECRET}"}}',
        f'bad: {{"model":"x","stream":true,"messages":[{{"content":"\\"error\\": {SECRET}"}}]}}',
        f'bad: {{"messages":[{{"role":"user","content":"{SECRET}"}}],"error":"no"}}',
        f'{{"oops":{{"parameters":{{"user_message":"{SECRET}"}}}}}}',
        f'{{"oops":{{"value":"{SECRET}"}}}}',
        f'{{"detail":"1 error: input_value=\'{SECRET}\', input_type=str"}}',
        f'{{"detail":"1 error: input_value=\'see [1] and {SECRET}\', input_type=str]"}}',
        json.dumps(
            {"status": "rejected", "request_body": json.dumps({"messages": [{"content": SECRET}]})}
        ),
        json.dumps({"failures": [f'bad: {{"prompt": "{SECRET}"}}']}),
        said_in(said_in(said_in({"messages": [{"role": "user", "content": SECRET}]}))),
        json.dumps({"error": f"bad part {{'type': 'text', 'text': '{SECRET}'}}"}),
        json.dumps({"error": f"bad part {{'text': '{SECRET}', 'type': 'text'}}"}),
        json.dumps({"error": f"bad message: role='user' content='{SECRET}'"}),
        json.dumps({"error": f'invalid type: string "{SECRET}", expected a sequence at line 1'}),
        json.dumps({"error": f"The value '{SECRET}' is not valid."}),
        json.dumps({"error": {"message": f"Invalid value at 'contents[0]' (type), \"{SECRET}\""}}),
    ],
)
def test_what_is_quoted_of_the_request_is_not_shown(body: str) -> None:
    info = error_info(400, body.encode())
    assert SECRET not in info.message
    assert info.message


@pytest.mark.parametrize(
    "body",
    [
        said(SPENT, "insufficient_quota"),
        said("m", "billing_hard_limit_reached"),
        said("Insufficient balance"),
        said("m", "1113"),
        {"base_resp": {"status_code": 1008, "status_msg": "m"}},
    ],
)
def test_an_empty_account_stays_one_beside_a_wait(body: Any) -> None:
    assert kind(body, retry_after="20") == "quota"


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.booleans())
def test_only_a_request_larger_than_the_whole_limit_is_never_accepted(
    limit: int, used: int, requested: int, grouped: bool
) -> None:
    spell = "{:,}".format if grouped else str
    numbers = f"Limit {spell(limit)}, Used {spell(used)}, Requested {spell(requested)}"
    body = said(
        f"Rate limit on tokens per min (TPM): {numbers}. Try again in 6s", "rate_limit_exceeded"
    )
    assert kind(body) == ("invalid" if requested > limit else "rate_limit")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Requested 59000 tokens, over the limit of 30000 tokens per minute", "invalid"),
        ("The maximum is 30000 tokens per minute. Your request has 59000 tokens", "invalid"),
        ("The request needs 59,000 tokens; the limit is 30,000 per minute", "invalid"),
        ("The request needs 5,000 tokens; the limit is 30,000 per minute", "rate_limit"),
        ("Your account reached max request: 3, try again after 1 seconds", "rate_limit"),
        ("Limit 20 requests per 10 seconds exceeded", "rate_limit"),
    ],
)
def test_the_numbers_of_a_limit_are_read_in_both_orders(words: str, expected: str) -> None:
    assert kind(said(words)) == expected


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 429, 500, 502, None])
@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 213462 tokens > 200000 maximum",
        "This model's maximum context length is 8192 tokens. However, you requested 9000",
        "The input token count (1196265) exceeds the maximum number of tokens allowed",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens",
        "the request exceeds the available context size, try increasing it",
        "Your request exceeded model token limit: 262144 (requested: 300000)",
        "invalid params, context window exceeds limit",
        "Input is too long for requested model.",
        "Please reduce the length of the messages or completion.",
        "Range of input length should be [1, 30720]",
    ],
)
def test_a_prompt_that_is_too_long_is_never_accepted(words: str, status: int | None) -> None:
    assert kind(said(words), status) == "invalid"


@pytest.mark.parametrize("status", [400, 404, 422, 500, 502, None])
@pytest.mark.parametrize(
    "words",
    [
        "image input is not supported",
        "This model does not support image input",
        "No endpoints found that support image input",
        'No endpoints found that support tool use. Try disabling "f".',
        "facebook/opt-125m is not a multimodal model",
        "unknown variant `image_url`, expected `text`",
        "m:latest does not support tools",
        "Audio input is not enabled for this model",
        "This model only supports text input",
        "The model doesn't support vision",
    ],
)
def test_what_a_model_cannot_do_is_no_fault_of_the_server(words: str, status: int | None) -> None:
    info = error_info(status, json.dumps(said(words)).encode())
    assert info.kind == "invalid"
    assert not info.retryable


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        (429, "Too many tokens, please wait before trying again.", "rate_limit"),
        (429, "Number of request tokens has exceeded your per-minute rate limit", "rate_limit"),
        (429, "Resource has been exhausted (e.g. check quota).", "rate_limit"),
        (429, "Please add a payment method to increase your rate limit", "rate_limit"),
        (503, "The model is overloaded. Please try again later.", "overloaded"),
        (500, "Internal error encountered.", "server"),
        (500, "litellm.RateLimitError: too many requests", "rate_limit"),
        (400, "temperature must be at most 2", "invalid"),
        (401, "No cookie auth credentials found", "auth"),
        (
            429,
            "Please reduce the prompt length or the maximum tokens requested, or try again later.",
            "rate_limit",
        ),
        (429, "Please reduce the prompt length, or try again later", "rate_limit"),
        (403, "Open api daily request limit reached", "quota"),
        (407, "Proxy Authentication Required", "auth"),
        (429, "You have no access to credits of this kind; too many requests", "rate_limit"),
        (524, "error code: 524", "server"),
    ],
)
def test_what_only_looks_alike(status: int, words: str, expected: str) -> None:
    assert kind(said(words), status) == expected


def test_a_name_is_no_code() -> None:
    assert kind({"error": {"name": "billing-service", "message": "down"}}, 500) == "server"


def test_amazon_s_header_names_the_type() -> None:
    header = "ThrottlingException:http://internal.amazon.com/coral/"
    info = error_info(400, b'{"message": "slow"}', {"x-amzn-errortype": header})
    assert (info.kind, info.type, info.code) == ("rate_limit", "ThrottlingException", None)


# -- waits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (said("try again in 7m12s"), 432.0),
        (said("Please retry in 20.04466179s."), 20.04466179),
        (said("Please retry after 6 seconds."), 6.0),
        (said("Please wait 84600 seconds before retrying."), 84600.0),
        (said("Please wait 8 hours 24 minutes and try again"), 30240.0),
        (said("try again in 120ms"), 0.12),
        (said("Retry in 2 days"), 172_800.0),
        (said("try again in 5 milliseconds"), 0.005),
        (said("m", retry_after=7), 7.0),
        (said("m", retry_after="7"), 7.0),
        (said("m", retry_after_ms=700), 0.7),
        (said("m", retryDelay="1.5s"), 1.5),
        (said("m", details=[{"@type": "RetryInfo", "retryDelay": {"seconds": 9}}]), 9.0),
        (said("m", details=[{"retryDelay": {"seconds": "1", "nanos": 500_000_000}}]), 1.5),
        (said("m", details=[{"retryDelay": {"nanos": 500_000_000}}]), 0.5),
        (said("m", details=[{"retryDelay": {"seconds": "soon", "nanos": 5}}]), None),
        (said("Next request allowed in 3s"), 3.0),
        (said("Slow down. Cooldown: 4s"), 4.0),
        (said("请求过于频繁，请在1分30秒后重试"), 90.0),
        (said("请求过于频繁，请 5 秒后再试"), 5.0),
        (said("请求过于频繁，请稍后再试"), None),
        (said("try again later"), None),
        (said("retry up to 3 messages"), None),
        (said("m", retry_after="soon"), None),
        (said("m", retry_after=-1), None),
        (said("m", retry_after=True), None),
        (said("m", retry_after=math.inf), None),
    ],
)
def test_the_wait_that_a_body_names(body: Any, seconds: float | None) -> None:
    found = error_from(429, body).retry_after
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_what_waiting_does_not_help_names_no_wait() -> None:
    assert error_from(402, said("Insufficient balance. Try again in 5 s")).retry_after is None


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"resets_in_seconds": 11_100}, 11_100.0),
        ({"resets_at": 1_700_011_100}, 11_100.0),
        ({"resets_at": 1_700_011_100, "resets_in_seconds": 5}, 5.0),
        ({"resets_at": 1_600_000_000}, None),  # over
        ({"resets_at": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_the_time_at_which_a_quota_is_renewed(fields: Any, seconds: float | None) -> None:
    body = {"error": {"type": "usage_limit_reached", "message": "The usage limit has been reached"}}
    body["error"] |= fields
    found = error_from(429, body, {"date": "Tue, 14 Nov 2023 22:13:20 GMT"})
    kind = "rate_limit" if "resets_in_seconds" in fields else "quota"
    assert (found.kind, found.retry_after) == (kind, seconds)
    for date in ("", "soon"):
        assert (error_from(429, body, {"date": date}).retry_after is None) is (
            "resets_in_seconds" not in fields
        )


# -- at any depth ------------------------------------------------------------------------------------------

LEAF = "Your account is suspended due to insufficient balance"


def wrapped(inner: Any, how: str) -> Any:
    text = json.dumps(inner)
    return {
        "error": {"error": inner},
        "list": {"errors": [inner]},
        "array": [inner],
        "detail": {"detail": inner},
        "cause": {"error": {"message": "fetch failed", "cause": inner}},
        "inner": {"error": {"code": "x", "innererror": inner}},
        "raw": {"error": {"message": "Provider returned error", "metadata": {"raw": text}}},
        "text": {"error": {"message": text, "code": 429}},
        "python": {"message": repr(inner)},
        "exception": {"throttlingException": inner},
        "data": {"data": {"error": inner}},
        "refused": {"error": {"message": "no", "value": {"error_message": text}}},
    }[how]


HOWS = [
    *("error", "list", "array", "detail", "cause", "inner", "raw", "text", "python", "exception"),
    *("data", "refused"),
]


@given(st.lists(st.sampled_from(HOWS), max_size=4))
def test_the_words_of_a_cause_are_found_at_any_depth(hows: list[str]) -> None:
    body: Any = {"message": LEAF, "code": "exceeded_current_quota_error"}
    for how in hows:
        body = wrapped(body, how)
    info = error_info(429, json.dumps(body).encode())
    assert LEAF in info.message
    assert info.kind == "quota"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"errors": [{"code": 1, "message": "a"}, {"message": "b"}]}, "a; b"),
        ({"errors": ["a", "b"]}, "a; b"),
        (
            {"errors": {"messages[0]": ["required"]}, "title": "Invalid"},
            "Invalid (messages[0]: required)",
        ),
        ({"Message": "a"}, "a"),
        ({"error_type": "t", "error_message": "a"}, "a"),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, "invalid params"),
        ({"detail": [{"loc": ["body", "n"], "msg": "a"}, {"loc": [], "msg": "b"}]}, "body.n: a; b"),
        (
            {"error": {"message": "no", "issues": [{"path": ["x", 0], "message": "bad"}]}},
            "no (x.0: bad)",
        ),
        (
            {"error": {"message": "no", "details": [{"target": "x", "message": "bad"}]}},
            "no (x: bad)",
        ),
        (
            {"error": "Not Found", "path": "/v1/x", "message": "No handler"},
            "Not Found (No handler)",
        ),
        ({"error": {"message": "a", "errors": [{"message": "a", "reason": "r"}]}}, "a"),
        ({"message": "Bad request", "detail": "n is too low"}, "Bad request (n is too low)"),
        ({"error": {"message": "no", "cause": "why"}}, "no (why)"),
        ({"errors": "why"}, "why"),
        ({"fault": {"faultstring": "why", "detail": {"errorcode": "x"}}}, "why"),
        ({"response": {"error": {"message": "why"}}}, "why"),
        ({"error": {"message": "no", "value": {"error_message": "why"}}}, "no (why)"),
        ({"error": {"message": "no", "value": {"reason": "a part of the request"}}}, "no"),
        ({"foo": {"bar": "why"}}, '{"foo":{"bar":"why"}}'),
        ([1, 2], "[1,2]"),
        (5, "5"),
        ({}, "no explanation"),
    ],
)
def test_the_words_of_any_shape(body: Any, message: str) -> None:
    assert error_info(500, json.dumps(body).encode()).message == message


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"error": {"message": "why", "code": "rate_limit_exceeded"}}',
        b'id: 1\nevent: error\n:HTTP_STATUS/400\ndata:{"code":"Throttling","message":"why"}\n\n',
        b'data: {"error": {"message": "why", "type": "too_many_requests"}}\n\ndata: [DONE]\n\n',
    ],
)
def test_a_refusal_in_the_form_of_a_stream_is_read(body: bytes) -> None:
    info = error_info(400, body)
    assert (info.message, info.kind) == ("why", "rate_limit")


def test_the_field_that_is_meant_is_shown() -> None:
    assert error_from(400, said("Invalid value", param="temperature")).message == (
        "Invalid value (field temperature)"
    )
    assert error_from(400, said("temperature is too high", param="temperature")).message == (
        "temperature is too high"
    )


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"error": {"message": "m", "http_code": "429"}}, 429),
        ({"error": {"message": "m", "status": "UNAVAILABLE"}}, 503),
        ({"error": {"cause": {"statusCode": 502}}}, 502),
        ({"error": "Error code: 429 - slow down"}, 429),
        ({"error": "503 Service Unavailable"}, 503),
        ({"error": {"message": "m", "type": "ThrottlingException"}}, 429),
        ({"error": {"message": "HTTP/1.1 504 Gateway Timeout"}}, 504),
        ({"error": {"message": "there are 500 of them"}}, None),
    ],
)
def test_the_status_that_an_error_in_a_stream_stands_for(event: Any, status: int | None) -> None:
    assert error_from(None, event).status == status


# -- what is not shown ---------------------------------------------------------------------------------------

ECHOES = ["input", "inputs", "prompt", "messages", "request", "body", "flagged_input", "ctx"]


@given(st.sampled_from(ECHOES), st.lists(st.sampled_from(["foo", "error", "data"]), max_size=3))
def test_nothing_of_the_request_is_shown(field: str, path: list[str]) -> None:
    body: Any = {field: {"text": "CANARY"}, "other": "why"}
    for key in path:
        body = {key: body}
    assert "CANARY" not in error_info(400, json.dumps(body).encode()).message


@pytest.mark.parametrize(
    "message",
    [
        "[{'type': 'missing', 'loc': ('body', 'n'), 'msg': 'required', 'input': {'prompt': 'CANARY'}}]",
        "1 validation error: {'loc': ('n',), 'msg': 'required', 'input': {'prompt': 'CANARY'}}",
        "1 validation error\n  required [type=missing, input_value={'prompt': 'CANARY'}, input_type=dict]",
    ],
)
def test_nor_what_pydantic_prints_of_it(message: str) -> None:
    shown = error_from(400, {"object": "error", "message": message}).message
    assert "CANARY" not in shown
    assert "required" in shown


@given(st.binary(max_size=200), st.sampled_from([None, 400, 404, 429, 500]))
def test_any_body_is_an_error_of_bounded_words(body: bytes, status: int | None) -> None:
    info = error_info(status, body, {"retry-after": "1"})
    assert 0 < len(info.message) <= EXCERPT_CHARS
    assert status is None or info.status == status


def test_a_large_body_is_read_in_part() -> None:
    wide = {f"k{i}": {f"k{j}": [["v"] * 99] * 9 for j in range(30)} for i in range(30)}
    assert len(error_info(500, json.dumps(wide).encode()).message) == EXCERPT_CHARS
    assert error_info(500, b"<title" * 100_000).message == "a page without text"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (
            b"<html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1>nginx",
            "502 Bad Gateway nginx",
        ),
        (b"<title>Open &amp; shut</title><script>x()</script><p>Go\n away", "Open & shut: Go away"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
        (b"<!DOCTYPE html><!-- no --><style>a{}", "a page without text"),
    ],
)
def test_a_page_is_shown_as_its_text(page: bytes, text: str) -> None:
    assert error_info(502, page).message == text


# -- complaints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        {"error": {"message": "m"}},
        {"error": "m"},
        {"error_type": "t", "error_message": "m"},
        {"errors": [{"code": 1, "message": "m"}]},
        {"base_resp": {"status_code": 1002, "status_msg": "m"}, "choices": None, "usage": {"a": 0}},
        {"code": "InvalidParameter", "message": "m", "request_id": "r"},
        {"code": 500},
        {"success": False},
        {"status": "failed"},
        {"status": 503, "title": "m"},
        {"object": "error"},
        {"detail": "m"},
        {"detail": [{"msg": "m"}]},
        {"Message": "m"},
        {"message": {"detail": "m"}},
        {"throttlingException": {"message": "m"}},
        [{"error": {"message": "m"}}],
        {"choices": [], "error_msg": "m"},
        {"event": "error", "message": "m"},
        {"code": "503", "msg": "m"},
        {"success": "false", "msg": "m"},
        {"type": "response.failed", "response": {"error": {"message": "m"}}},
    ],
)
def test_a_complaint_is_one_in_any_clothes(found: Any) -> None:
    info = complaint_in(found)
    assert info is not None
    assert info.message != "no explanation"


@pytest.mark.parametrize(
    "found",
    [
        None,
        5,
        "m",
        [],
        {},
        {"id": "x", "object": "chat.completion.chunk", "model": "m"},
        {"status": "processing", "message": "thinking"},
        {"message": "ok", "code": 0},
        {"message": "ok", "code": "200"},
        {"success": True, "message": "m"},
        {"ok": True, "err": None, "err_code": 0, "response": {"error": None}},
        {"errors": [], "error": None, "error_code": 0, "error_msg": "success"},
        {"error": {}},
        {"error": {"code": None}},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"choices": [], "message": "m"},
        {"usage": {"prompt_tokens": 1}, "message": "m"},
        {"message": {"role": "assistant", "content": "an answer of another format"}},
        {"type": "ping"},
    ],
)
def test_what_is_no_complaint(found: Any) -> None:
    assert complaint_in(found) is None


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_complaint_ends_a_stream_on_every_wire(wire: str) -> None:
    met = meet({"error_type": "t", "error_message": "no such thing"}, None, wire=wire)
    assert isinstance(met.error, llm.ProviderError)
    assert "no such thing" in str(met.error)


# -- the address ------------------------------------------------------------------------------------------------


def asked(status: int, body: bytes, *, query: str = "", **headers: str) -> llm.MiniLLMError:
    transport = testing.ScriptedTransport(testing.reply(body, status=status, headers=headers))
    model = llm.compatible("m", base_url=f"https://llm.invalid/v1{query}", api_key="key-0123456789")

    async def call() -> llm.MiniLLMError:
        async with llm.open_client(transport=transport, retry=llm.Retry(attempts=1)) as client:
            with pytest.raises(llm.MiniLLMError) as caught:
                await client.complete(model, "Hi")
        return caught.value

    return trio.run(call, clock=trio.testing.MockClock(autojump_threshold=0))


URL = "https://llm.invalid/v1/chat/completions"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            404,
            b'{"detail": "Not Found"}',
            f"Not Found (asked {URL}: the path or the model may be wrong)",
        ),
        (405, b"", f"no explanation (asked {URL}: the path or the model may be wrong)"),
        (502, b"<title>Bad Gateway</title>", f"Bad Gateway (a page, not an answer; asked {URL})"),
        (301, b"", f"the server redirects; not followed (asked {URL})"),
        (200, b"<title>Welcome</title>", f"not an event stream: Welcome (asked {URL})"),
        (200, b"[1]", f"(asked {URL})"),
    ],
)
def test_an_answer_from_the_wrong_place_names_the_address(
    status: int, body: bytes, words: str
) -> None:
    for query in ("", "?api-version=secret"):
        error = asked(status, body, query=query)
        assert words in str(error)
        assert "secret" not in str(error)
        if isinstance(error, llm.RefusedError):
            assert error.url == URL


def test_other_refusals_have_it_as_a_field_alone() -> None:
    error = asked(429, b'{"error": {"message": "slow down"}}')
    assert isinstance(error, llm.RefusedError)
    assert (str(error), error.url) == ("HTTP 429 rate_limit: slow down", URL)


def test_a_page_does_not_show_the_key() -> None:
    for status in (200, 404):
        assert "0123456789" not in str(asked(status, b"<p>no such key: key-0123456789"))


# -- who is asked --------------------------------------------------------------------------------------------------


class Own(llm.Provider):
    """A provider with a reading of its own for errors."""

    def parse_error(self, status: int | None, body: bytes) -> llm.ErrorInfo:
        return llm.ErrorInfo(message="mine", kind="invalid", status=status)


def test_a_provider_s_own_reading_of_errors_goes_before_ours() -> None:
    assert Own().parse_refusal(429, {"retry-after": "1"}, b"").message == "mine"
    ours = llm.Provider().parse_refusal(429, {"retry-after": "1"}, json.dumps(said(SPENT)).encode())
    assert ours.kind == "rate_limit"


async def test_one_request_that_is_too_large_does_not_slow_a_batch_down(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It costs itself: one attempt, and neither a pause nor a lower rate for the others."""
    large = json.dumps(
        said(
            "Request too large on tokens per min (TPM): Limit 30000, Requested 59000",
            "rate_limit_exceeded",
        )
    ).encode()

    def choose(request: testing.ServedRequest) -> testing.Reply:
        if b"LARGE" in request.body:
            return testing.reply(
                large, status=429, headers={"x-ratelimit-remaining-tokens": "29000"}
            )
        return testing.reply(*testing.openai_events("ok"), wait=0.1)

    transport = testing.ScriptedTransport(choose)
    model = llm.compatible("m", base_url="https://llm.invalid/v1", api_key="key-0123456789")
    requests = [BatchRequest(str(n), "LARGE" if n in (3, 50) else f"hi {n}") for n in range(200)]
    started = trio.current_time()
    async with llm.open_client(transport=transport) as client:
        async with client.batch(requests, model=model, max_concurrency=10) as run:
            results = [result async for result in run]
    assert sum(result.ok for result in results) == 198
    assert len(transport.requests) == 200
    assert trio.current_time() - started < 5.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Insufficient USD or Diem balance to complete request.", "quota"),
        ("You do not have enough credits", "quota"),
        ("You don't have enough funds", "quota"),
        ("Credit limit exceeded, please navigate to the settings", "quota"),
        ("You are using a trial key, which is limited to 20 API calls / minute", "rate_limit"),
        ("The limit of requests per second is reached", "rate_limit"),
        ("Unauthorized", "auth"),
        ("Forbidden", "auth"),
        ("The limits of this service are unknown", "server"),
    ],
)
def test_words_say_in_a_stream_what_a_status_says_elsewhere(words: str, expected: str) -> None:
    assert kind(said(words), None) == expected
    assert kind({"detail": {"error": words}}, None) == expected


def test_an_error_inside_another_object_is_a_complaint() -> None:
    told = complaint_in({"detail": {"error": "please top up your account balance"}})
    assert told is not None
    assert told.kind == "quota"
    assert complaint_in({"detail": {"error": None}}) is None


def test_half_a_surrogate_pair_in_an_error_is_replaced() -> None:
    body = b'{"error":{"message":"no \\ud800","code":"slow_down","metadata":{"x":["\\ud800"]}}}'
    for info in (error_info(503, body), error_from(503, json.loads(body))):
        assert info.message == "no \ufffd"
        assert info.code == "slow_down"
        assert info.metadata == {"x": ["\ufffd"]}
    assert error_from(None, {"error": {"when": {"x": "\ud800"}}}).message == "unreadable: ['error']"


def test_an_error_in_another_encoding_is_read_all_the_same() -> None:
    info = error_info(
        429, '{"error":{"message":"zu schnell für uns","code":"quota_exceeded"}}'.encode("latin-1")
    )
    assert (info.message, info.code, info.kind) == (
        "zu schnell f\ufffdr uns",
        "quota_exceeded",
        "quota",
    )


def test_an_error_that_is_nested_too_deep_is_shown_as_text() -> None:
    body = b'{"error":{"metadata":{"x":' + b"[" * 800 + b"]" * 800 + b"}}}"
    assert error_info(500, body).message.startswith('{"error"')


def test_a_pack_of_tokens_that_is_used_up_is_an_empty_account() -> None:
    words = "The resource pack has been used up"
    assert kind(said(words, "FailedOperation.ResourcePackExhausted"), 400) == "quota"


def test_a_failure_under_a_status_of_success_is_told_by_its_code() -> None:
    body = b'{"base_resp":{"status_code":1002,"status_msg":"m"}}'
    assert error_info(200, body).kind == "rate_limit"
    assert error_info(200, b'{"error":{"code":401,"message":"m"}}').kind == "auth"


@pytest.mark.parametrize(
    "words",
    [
        "Rate limit exceeded. Please add credits to increase your rate limits.",
        "Free tier rate limit exceeded",
        "Please try again in 6s or please add credits to move up a tier",
        "Please retry in 30 seconds. Users without credits are limited to 20 requests per minute",
        "Free quota limit: 3 RPM exceeded. Please try again after 20 seconds",
    ],
)
def test_advice_to_buy_a_higher_rate_is_no_empty_account(words: str) -> None:
    assert kind(said(words), retry_after="20") == "rate_limit"


@pytest.mark.parametrize("quote", ["'{}'", '"{}"', "`{}`"])
@pytest.mark.parametrize(
    "words", ["insufficient credits", "payment required", "usage limit reached"]
)
def test_what_a_complaint_quotes_of_the_request_says_nothing(quote: str, words: str) -> None:
    body = said(
        f"Invalid value: {quote.format(words)}. Supported values are: 'paid'.", "invalid_value"
    )
    assert kind(body, 400) == "invalid"
    assert kind(said(f"It {words} {quote.format('x')}"), 400) == kind(said(f"It {words}"), 400)


@pytest.mark.parametrize(
    ("words", "code", "status", "expected"),
    [
        ("m", "PrepaidBillOverdue", 429, "quota"),
        ("m", "CommodityNotPurchased", 429, "quota"),
        ("You're out of extra usage. Add more at claude.ai/settings/usage", None, 400, "quota"),
        ("Your subscription plan does not yet include access", "1311", 429, "quota"),
        ("您的账户额度已耗尽", None, 429, "quota"),
        ("limit: 200k; requested: 4251", None, 429, "rate_limit"),
        ("limit 10K tokens, requested 12,500 tokens", None, 429, "invalid"),
        ("maximum 5, requested 6", None, 429, "rate_limit"),
        ("the limit is 60, the request is 61", None, 429, "rate_limit"),
        ("Authentication Error - Expired Key", "expired_key", 400, "auth"),
        ("This organization has been disabled", None, 400, "auth"),
        ("tools param requires --jinja flag", None, 500, "invalid"),
        ("At most 1 image(s) may be provided in one request", None, 500, "invalid"),
        ("the max input characters is 11200", None, None, "invalid"),
        ("m", "AuthFailure.SignatureFailure", None, "auth"),
    ],
)
def test_words_and_codes_of_single_servers(
    words: str, code: str | None, status: int | None, expected: str
) -> None:
    assert kind(said(words, code), status) == expected


def test_a_message_that_litellm_prints_is_not_shown() -> None:
    words = (
        "litellm.BadRequestError: Invalid Message passed in {'role': 'user', 'content': 'SECRET'}"
    )
    for body in (said(words), said(words.replace("'", '"')), {"status": "bad", "query": "SECRET"}):
        assert "SECRET" not in error_info(400, json.dumps(body).encode()).message


def test_a_limit_of_a_day_with_a_wait_of_seconds_is_a_quota_whatever_is_advised() -> None:
    quota = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
    words = f"{SPENT} Quota exceeded for metric: x, limit: 20, model: m\\nPlease retry in 34.07s."
    body = said(words, 429, status="RESOURCE_EXHAUSTED", details=[quota, {"retryDelay": "34s"}])
    assert kind(body) == "quota"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            'litellm: AnthropicException - {"error":{"message":"Your credit balance is too low"}}. x',
            "quota",
        ),
        ("Error code: 400 - {'error': {'message': 'API key not valid.', 'code': 400}}", "auth"),
    ],
)
def test_what_a_gateway_quotes_of_its_upstream_counts(words: str, expected: str) -> None:
    assert kind(said(words, "400"), 400) == expected


@pytest.mark.parametrize("word", ["queued", "Processing", " waiting "])
def test_a_word_for_what_goes_on_is_no_complaint(word: str) -> None:
    assert complaint_in({"message": word, "queue_position": 3}) is None


@pytest.mark.parametrize("word", ["model_not_loaded", "Payload-Too-Large", "stopping", "the queue"])
def test_a_word_that_only_contains_one_is(word: str) -> None:
    assert complaint_in({"message": word}) is not None


@pytest.mark.parametrize(
    ("words", "status", "found"),
    [
        ("Invalid token", None, "auth"),
        ("Invalid token.", 400, "auth"),
        ("Invalid token '}' at position 5 in JSON", 400, "invalid"),
        ("Authentication error", None, "auth"),
        ("Authentication failed: the upstream refused", 500, "auth"),
        ("当前分组上游负载已饱和，请稍后再试", 429, "overloaded"),
        ("当前分组上游负载已饱和，请稍后再试", 500, "overloaded"),
        ("系统繁忙", None, "overloaded"),
        ("请求过于频繁，请稍后再试", None, "rate_limit"),
        ("您的账户已达到速率限制，请您控制请求频率", None, "rate_limit"),
        (
            "This server does not support completions. Start it without `--embeddings`",
            501,
            "invalid",
        ),
        ("Not Implemented", 501, "invalid"),
    ],
)
def test_words_that_relays_have_for_it(words: str, status: int | None, found: str) -> None:
    assert kind({"error": {"message": words}}, status) == found


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("x/y is not a valid model ID", True),
        ("The model `gpt-9` does not exist", True),
        ("max_tokens is too large", False),
        ("", False),
    ],
)
def test_words_for_a_model_that_is_not_there(words, absent):
    assert says_absent(words) is absent
