"""Codes of errors: what numbers stand for, and the HTTP status that a code implies. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

CODES_OF_NUMBERS: dict[str, str] = {
    "1002": "authenticationerror",
    "1113": "insufficientbalance",  # Z.ai, those of four digits below 2000 (docs.z.ai/api-reference/api-code)
    "1210": "invalidparametererror",
    "1211": "modelnotfound",
    "1261": "prompttoolong",
    "1301": "contentfilter",
    "1302": "ratelimit",
    "1303": "ratelimit",
    "1304": "usagelimit",
    "1305": "ratelimit",
    "1308": "usagelimit",
    "1309": "paymentrequired",
    "1310": "usagelimit",
    "1312": "overloaded",
    "20012": "modelnotfound",  # SiliconFlow (docs.siliconflow.cn: FAQs, error codes)
    "336003": "invalidparametererror",  # Qianfan (cloud.baidu.com/doc: error codes)
    "3006": "requesttoolarge",  # Cloudflare (developers.cloudflare.com/workers-ai/platform/errors)
    "3036": "usagelimit",
    "3040": "outofcapacity",
}
"""Meaning of the numbers in ``code``, for servers whose words may be in any language."""

CODES_OF_BASE_RESP: dict[str, str] = {
    "1000": "servererror",
    "1001": "timeouterror",
    "1002": "ratelimitexceeded",
    "1004": "authenticationerror",
    "1008": "insufficientbalance",
    "1013": "servererror",
    "1024": "servererror",
    "1026": "invalidrequest",  # the content is refused
    "1027": "invalidrequest",
    "1033": "servererror",
    "1039": "ratelimitexceeded",
    "1041": "ratelimitexceeded",
    "1042": "invalidrequest",
    "2013": "invalidrequest",
    "2045": "ratelimitexceeded",
    "2049": "invalidapikey",
    "2056": "usagelimit",
}
"""The same for ``base_resp.status_code`` (platform.minimax.io/docs/api-reference/errorcode)."""

STATUS_OF_CODES: dict[str, int] = {
    "invalidrequesterror": 400,
    "invalidrequest": 400,
    "invalidparametererror": 400,
    "invalidargument": 400,
    "failedprecondition": 400,
    "badrequest": 400,
    "badrequesterror": 400,
    "validationexception": 400,
    "validationerror": 400,
    **dict.fromkeys(
        (
            *("contentfilter", "contentpolicyviolation", "contentpolicyviolationerror"),
            *("datainspectionfailed", "responsibleaipolicyviolation", "invalidprompt"),
            *("unsupportedparameter", "unsupportedvalue", "unsupportedparamserror"),
        ),
        400,
    ),  # Azure, DashScope, OpenAI, litellm
    "contextlengthexceeded": 400,
    "contextwindowexceedederror": 400,
    "exceedcontextsizeerror": 400,
    "invalidapikey": 401,
    "autherror": 401,
    "unauthorized": 401,
    "unauthenticated": 401,
    "authenticationerror": 401,
    "billingerror": 402,
    "paymentrequired": 402,
    "insufficientbalance": 402,
    "forbidden": 403,
    "permissionerror": 403,
    "permissiondenied": 403,
    "permissiondeniederror": 403,
    "accessdeniedexception": 403,
    "notfounderror": 404,
    "notfound": 404,
    "modelnotfound": 404,
    "modelnotsupported": 404,
    "deploymentnotfound": 404,
    "resourcenotfoundexception": 404,
    "modeltimeoutexception": 408,
    "conflicterror": 409,
    "requesttoolarge": 413,
    "unprocessableentityerror": 422,
    "insufficientquota": 429,
    "usagelimit": 429,
    "ratelimiterror": 429,
    "ratelimitexceeded": 429,
    "resourceexhausted": 429,
    "throttlingexception": 429,
    "toomanyrequests": 429,
    "apierror": 500,
    "servererror": 500,
    "internal": 500,
    "internalservererror": 500,
    "internalservererrorexception": 500,
    "internalserverexception": 500,
    "internalerror": 500,
    "modelstreamerrorexception": 500,
    "badgateway": 502,
    "unavailable": 503,
    "unavailableerror": 503,
    "serviceunavailable": 503,
    "serviceunavailableerror": 503,
    "serviceunavailableexception": 503,
    "serverisoverloaded": 503,
    "slowdown": 503,
    "engineoverloadederror": 503,
    "provideroverloaded": 503,
    "timeouterror": 504,
    "deadlineexceeded": 504,
    "gatewaytimeout": 504,
    "overloadederror": 529,
}
"""The HTTP status that a code or type stands for: OpenAI's, Anthropic's, Google's, Amazon's, and the
names of exceptions that gateways written in Python send."""


def plain_code(value: str) -> str:
    """Return a code without case and separators: ``Throttling.RateQuota`` is ``throttlingratequota``."""
    return re.sub(r"[^a-z0-9]", "", value.lower())


def status_of(codes: Iterable[str]) -> int | None:
    """Return the HTTP status that the first known of these codes stands for.

    `GENERIC` ones count only if there is no other: DeepSeek gives each of its errors one of them.
    """
    known = [code for code in codes if code in STATUS_OF_CODES]
    telling = [code for code in known if code not in GENERIC]
    return next((STATUS_OF_CODES[code] for code in (*telling, *known)), None)


GENERIC = frozenset(("invalidrequesterror", "invalidrequest"))
"""Codes that say no more than that there is an error."""
