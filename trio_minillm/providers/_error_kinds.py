"""Kinds of errors, told from what servers say: one table for every provider and every status.

Servers agree on shapes, not on meanings: HTTP 429 is a limit per minute here and an empty account
there, and ``quota`` stands for both. So the evidence is weighed in this order, and the first row of
`RULES` that fits decides:

1. codes and types, which are made for programs;
2. limits that are named (Google's ``…PerMinute…``, ``…PerDay…``) and numbers (``Limit 30000,
   Requested 59000``);
3. a wait that the body or the headers name: a throttle that says when to come back is no empty
   account;
4. phrases, those of an empty account before those that speak of a quota in general;
5. the HTTP status.

Sources are named beside each row; docs/servers/servers.md lists them by server. Pure.
"""

from __future__ import annotations

import re

import msgspec

from .._types.errors import ErrorKind

HOUR = 3600.0
"""Seconds. A shorter wait than this beside a limit per day is not meant for that limit: Google
names some seconds even where the limit is 0 (continuedev/continue#10062)."""


FEWEST_TOKENS = 500
"""Tokens of the smallest limit that a single request may exceed; a smaller limit is one of requests."""


class Evidence(msgspec.Struct, frozen=True):
    """An error as the rules see it."""

    status: int | None
    codes: str = ""
    """Codes and types, each without case and separators, with spaces between."""
    words: str = ""
    """The messages, in lower case."""
    limits: str = ""
    """Names of the limits that were hit, as codes are written."""
    wait: float | None = None
    """Seconds to wait that the body names."""
    told: bool = False
    """True if the headers say when to come back."""


class Rule(msgspec.Struct, frozen=True):
    """One row: the kind of an error for which all that is given here is true."""

    kind: ErrorKind
    codes: str = ""
    words: str = ""
    limits: str = ""
    unless: str = ""
    """Words that rule it out."""
    throttled: bool | None = None
    wait_below: float | None = None
    """Most seconds of a named wait; none named fits, too."""
    statuses: frozenset[int | None] | None = None
    but: frozenset[int | None] = frozenset()
    """Statuses that rule it out."""

    hints: tuple[str, ...] = ()
    """Beginnings of words of which one must be there: a quick test before the slow one."""

    def fits(self, seen: Evidence, throttled: bool) -> bool:
        """Return whether the rule decides this error. ``throttled`` says that it passes by itself,
        and soon: a wait is named, or a window of hours at most.
        """
        return (
            (self.statuses is None or seen.status in self.statuses)
            and seen.status not in self.but
            and (self.throttled is None or self.throttled == throttled)
            and (self.wait_below is None or (seen.wait or 0.0) < self.wait_below)
            and (not self.codes or re.search(self.codes, seen.codes) is not None)
            and (not self.limits or re.search(self.limits, seen.limits) is not None)
            and (not self.hints or any(hint in seen.words for hint in self.hints))
            and (not self.words or re.search(self.words, seen.words) is not None)
            and (not self.unless or re.search(self.unless, seen.words) is None)
        )


def _any(*patterns: str) -> str:
    return "|".join(patterns)


# -- words ---------------------------------------------------------------------------------------

_FEW_WORDS = r"(?:[\w'-]+ ){0,4}"
"""A few words between two that belong together, names of models and owners among them."""

_SHORT = (
    r"per[-_ ]?(?:second|sec\b|minute|min\b|hour)|/ ?(?:s|sec|min|minute|hour)\b|\b(?:rpm|tpm|rps|tps|rph|tph)\b"
    r"|(?:second|minute|hour)ly\b|\bhour allocated|concurren|a(?:n| few)? (?:second|minute)"
    r"|(?:per|every|each|in|within|last) (?:\d{1,4}[- ]?(?:s|sec|second)|\d{1,3}[- ]?(?:m|min|minute)"
    r"|(?:1?\d|2[0-3])[- ]?(?:h|hour))s?\b"
    r"|(?:every|each|this|current|next) (?:second|minute|hour)\b"
    r"|(?:second|minute|hour)[- ](?:quota|limit|window|rate)"
)
_LONG = _any(
    r"per[-_ ]?(?:day|week|month)|/ ?(?:day|week|month)\b|\b(?:rpd|tpd)\b|(?:week|month) allocated",
    r"(?:per|every|each|in|within|last) (?:\d{5,6}[- ]?(?:s|sec|second)|24[- ]?(?:h|hour)|\d{1,2}[- ]?day)s?\b",
    r"(?:daily|weekly|monthly|today'?s) (?:[\w()-]+ ){0,2}(?:limit|quota|allocation|allowance|cap\b|usage)",
)

_EMPTY_CODES = _any(
    "insufficient(?:account)?(?:balance|credit|fund)",  # DeepSeek, MiniMax, Together
    "insufficientuserquota",  # new-api, one-api
    "creditbalance|billing|spend(?:ing)?limit|organizationusagelimit",  # OpenAI, Anthropic, xAI
    "exceededcurrentquota",  # Moonshot
    "arrearage|freetieronly|billoverdue|commoditynotpurchased",  # DashScope
    "accountoverdue",  # Volcengine
    r"budgetexceeded|exceeded(?:token|user|team|org\w*)?budget",  # litellm
    "setlimitexceeded",  # Volcengine: the limit that its user set
    "weightexceedsbudget|keylimitexceeded",  # OpenRouter
    "paymentrequired|paymentmethodrequired",  # Gemini, SambaNova
    "blockedapiaccess",  # Groq
    "resourcepack(?:age)?(?:exhausted|runout|usedup)",  # Tencent
    "notenoughbalance|outofcredits|nocredits|usagenotincluded",  # Hugging Face, ChatGPT plans
)
_EMPTY_WORDS = _any(
    r"credit balance is too low|reached your specified api usage limits",  # Anthropic
    r"(?:insufficient|not enough|n[o']t have enough|inadequate|no (?:remaining|more)) (?:\w+ ){0,3}"
    r"(?:balance|credit|fund)",  # DeepSeek, MiniMax, Z.ai, Together, OpenRouter, Venice
    r"credit limit",  # Together
    r"balance (?:is |was )?(?:insufficient|not enough|too low|exhausted|depleted|negative)",
    r"(?:out of|run out of|used all (?:of )?(?:your |the )?(?:available )?) ?credits?",  # xAI
    r"credits? (?:is |are |ha(?:s|ve) been |were )?(?:exhausted|depleted|used up|expired)",  # Gemini
    r"(?:does ?n['o]t|do ?n['o]t|lack of|no|without) (?:have )?(?:any )?(?:available )?credits",  # xAI
    r"quota is not enough|out of (?:call volume )?quota",  # one-api, Azure
    r"requires more credits|can only afford|key limit exceeded",  # OpenRouter
    r"included credits",  # Hugging Face
    r"spend(?:ing)? (?:limit|cap\b)|billing (?:hard )?limit|billing (?:is )?not active",  # OpenAI, Fireworks
    r"(?:requires|enable) billing|billing to be enabled",  # Gemini
    r"budget has been exceeded|exceeded ?(?:token|user|team)?budget|over budget|(?:budget|crossed) exceeded|crossed budget",
    r"(?:recharge|top up) (?:your|the) account|please (?:recharge|top up)|please add (?:more )?(?:credits|funds)",
    r"account (?:is )?(?:overdue|in arrears)|account is in good standing|past invoices",  # DashScope
    r"payment required|unpaid (?:bill|invoice)|overdue payment",  # Mistral
    r"free allocation|free (?:tier|quota|allocated quota)[^.]{0,40}(?:exhausted|exceeded|used up|ended)",
    r"(?:exhausted|exceeded|used up) (?:\w+ ){0,2}free (?:\w+ )?quota",  # Volcengine
    "余额不足|欠费|额度不足|额度已用|额度已耗尽|资源包已用完|请充值|账户余额",  # Z.ai, new-api
    r"out of (?:extra )?usage|draw from your extra usage",  # Anthropic's plans
    r"subscription plan does not (?:yet )?include",  # Z.ai
)
_BROKE_WORDS = _any(
    r"(?:insufficient|not enough|n[o']t have enough|inadequate|no (?:remaining|more)) (?:\w+ ){0,3}(?:balance|credit|fund)",
    r"balance (?:is |was )?(?:insufficient|not enough|too low|exhausted|depleted|negative)|balance is too low",
    r"overdue|arrears|payment required|unpaid|past invoices|billing hard limit|budget has been exceeded",
    r"(?:free (?:tier|quota|allocation)[^.]{0,40}|credits? (?:\w+ ){0,2})(?:exhausted|depleted|used up|expired)",
    "余额不足|欠费|额度不足|额度已用|额度已耗尽|资源包已用完|请充值|账户余额",
)
"""Words of an account that is empty for certain; the others of `_EMPTY_WORDS` may be advice in a
throttle, to buy a higher rate."""
_NO_MONEY = (
    "balance|overdue|arrears|payment|unpaid|invoice|quota|budget|credit|spend|allocation|top.?up"
    "|recharge|fund|expired|trial|余额|欠费|额度|充值"
)
"""Words of which one at least is in every message about money or a quota."""
_EMPTY_HINTS = (
    *("credit", "balance", "fund", "spend", "billing", "budget", "charge", "top up", "overdue"),
    *("arrears", "standing", "payment", "invoice", "unpaid", "limit exceeded", "reached your"),
    *("quota is not", "out of "),
    *("free ", "余额", "欠费", "额度", "请充值", "资源包", "extra usage", "subscription"),
)
_PLAN_WORDS = (
    rf"(?:reach|exceed|hit|over)\w* {_FEW_WORDS}usage limit"
    r"|usage limits? (?:\w+ ){0,2}(?:reached|exceeded|hit)"
)
"""Words of a subscription's limit, which lasts for hours or days: Kimi, MiniMax, ChatGPT, Z.ai."""
_QUOTA_CODES = _any("quota", "usagelimit", "allowanceexceeded")
_QUOTA_WORDS = _any(
    rf"exceed\w* {_FEW_WORDS}(?:quota|allowance|allotment)",
    r"quota (?:has been |is |was )?(?:exceeded|exhausted|reached|used up|depleted)|out of quota|insufficient quota",
    _PLAN_WORDS,
    r"usage limit: |(?:reached|exceeded|hit|used up) (?:your|the) (?:\w+ ){0,2}(?:daily|weekly|monthly)",
    "使用上限|限额将在",  # Z.ai
)
_RATE_CODES = _any(
    "rate(?:limit|exceed)|toomany(?:requests|tokens)|throttl|limitrequests|limitburst",
    "(?:request|token|rpm|tpm|concurrency)(?:rate)?limit(?:reached|exceeded)|requestlimit",
)
_RATE_WORDS = (
    r"rate[- ]?limit|too many (?:concurrent )?requests|throttl|request limit|requests? too frequent"
    r"|qps ?overflow"  # iFlytek
    "|过于频繁|速率限制|频率限制"  # one-api and its forks
)
_BUSY_CODES = (
    "overloaded|outofcapacity|capacityexceeded|serverbusy|engineoverload|slowdown|queueexceeded"
)
_BUSY_WORDS = _any(
    r"\boverloaded|(?:out of|over|at) (?:max\w* |full )?capacity|capacity (?:is |was |has been )?(?:temporarily )?exceeded",
    r"no capacity|too busy|server (?:is )?busy|high (?:demand|traffic)|heavy load|访问量过大",
    "负载已?饱和|(?:系统|服务器|服务)繁忙",  # one-api and its forks
)

_LARGE_CODES = _any(
    "contextlength|contextwindow|exceedcontextsize|contextlimit|contextoverflow",  # OpenAI, llama.cpp
    "(?:request|payload|entity|prompt|input|body|content)(?:is)?too(?:large|long|big)",  # Anthropic
    "stringabovemaxlength|maxtokensexceeded|tokenslimitreached|modeltokenlimit|maxprompttokens",  # GitHub
)
_LARGE_WORDS = _any(
    r"(?:request|payload|entity|body|content) (?:is |was )?too (?:large|big)",  # OpenAI, Groq, nginx
    r"must be reduced in order",
)
_SMALLER_WORDS = r"reduce (?:your|the) (?:message|prompt|input)|reduce the length"
"""Advice, which Anthropic gives with every rate limit, too: "reduce the prompt length …, or try again
later" (docs.anthropic.com/en/api/rate-limits)."""
_CONTEXT_WORDS = _any(
    r"(?:prompt|input|message|request|context|conversation|inputs?)s?`? (?:is |are |was |were )?too long",  # Bedrock
    r"(?:maximum|max|model'?s?|available|the) (?:available )?(?:context|prompt) (?:length|size|window|limit)",
    r"context (?:length|window|size|limit)(?: is| was| has been)? exceed|context window exceeds|prompt 超长",
    r"exceed\w*[^.]{0,40}(?:context|maximum number of (?:input )?tokens|model token limit|input limit)",
    r"(?:input|prompt) token count[^.]{0,60}exceed|maximum prompt length|context length",  # Gemini, xAI
    r"max(?:imum)? input characters|range of input length should be|must have less than \d+ tokens|`inputs` tokens|string too long",
    r"long context (?:requests|beta|is )",  # Anthropic: another plan is needed for it
)
_NOT = r"(?:\bnot|n't|\bunable to|\bcannot) (?:\w+ ){0,2}"
_ABILITY = (
    r"(?:image|picture|photo|vision|visual|multi-?modal|modalit|audio|video|document|pdf|tool|function"
    r"|reasoning|thinking|developer|system (?:message|prompt|role)|json|schema|structured|logprob)"
)
_UNABLE_WORDS = _any(
    rf"{_NOT}(?:support|accept|allow|handle|process|understand|view|read|see)\w*[^.\n]{{0,40}}{_ABILITY}",
    rf"{_ABILITY}[^.\n]{{0,60}}(?:(?:\bnot|n't) (?:\w+ )?(?:supported|enabled|allowed|accepted|available (?:for|with|on|in) th)|unsupported)",
    rf"unsupported[^.\n]{{0,30}}{_ABILITY}|{_NOT}(?:a |an )?(?:multi-?modal|vision|image|audio)",  # vLLM
    rf"no endpoints found (?:that support|matching)|no (?:endpoint|model|provider)s?[^.\n]{{0,40}}support[^.\n]{{0,40}}{_ABILITY}",
    r"only supports? text|text[- ]only|unknown variant [`'\"]?(?:image|input_audio|file|video)",  # DeepSeek
    r"--jinja|at most \d+ (?:image|audio|video)",  # llama.cpp, vLLM
    r"mmproj|missing data required for (?:image|audio) input",  # llama.cpp, Ollama
)
_UNABLE_HINTS = (
    "support",
    "not ",
    "n't ",
    "unable",
    "only",
    "unknown variant",
    "mmproj",
    "missing data",
    "--jinja",
    "at most",
)
_KEY_CODES = _any(
    "apikey|unauthenticated|unauthorized|authenticationerror|invalidauth|invalidtoken|expiredkey",
    "organizationrestricted|authfailure|\\bautherror",  # Groq, Tencent, litellm
)
_KEY_WORDS = r"organization has been disabled|access token (?:is )?(?:invalid|expired)|appidnoauth|expired key|(?:incorrect|invalid|missing|wrong|expired|no) api[- ]?key|api[- ]?key (?:is |was )?(?:not valid|invalid|expired|missing|incorrect)|无效的令牌|令牌(?:已过期|无效|不可用)|^\W{0,3}invalid token\W*$|\bauthentication (?:error|failed|failure|required)\b"

_ABSENT_WORDS = _any(
    r"(?:model|deployment|engine)\b[^\n]{0,80}?(?:not found|(?:does ?n[o']t|do not|not) exist|is not (?:supported|served))",
    r"(?:unknown|invalid|no such|unsupported) (?:model|endpoint|deployment)\b|unexpected endpoint",  # LM Studio
    r"^\W{0,3}(?:404 )?not found\b",
)
_UNFIT_WORDS = _any(
    r"validation errors?\b|(?:field|input should|extra inputs)[^\n]{0,40}(?:required|be a valid|not permitted)",
    r"^\W{0,3}(?:bad|invalid) request\b|unprocessable|roles must alternate",  # templates of llama.cpp, vLLM
    r"at least one message is required|messages must not be empty",
)
"""Words of a request that no attempt will see accepted, unless they are about the server itself."""
_FAULTY_WORDS = (
    r"internal (?:server )?error|\bretry|try again|overloaded|timed? ?out|reset\b|died|dead\b|crash|output|response"
    r"|worker|loading|upstream|engine|stream|chunk|registry|at the moment|temporar|connection|replica|unreachable"
)
_RETRY = r"(?<!prompt and )(?<!request and )(?<!input and )\b(?:try again|retry)\b(?! with)"
"""Advice to send the same again, and not another request."""
FAULTS = _any(
    r"internal[_ ](?:server[_ ])?error|\boverload|\bunreachable\b|\breplica\b|timed? ?out",
    r"connection (?:error|refused|reset|timed|closed|abort|terminat|lost|fail)|upstream connect",
    r"(?:temporarily|service|currently|server is|system is) (?:unavailable|busy|too busy)",
)
"""Words of a server that is at fault, whatever else they quote."""
AGAIN = rf"{_RETRY}|{FAULTS}|\bbus(?:y|ier)\b|\bunavailable\b|\bconnection\b"
"""Words of a failure that may pass."""
_REFUSED_CONTENT = r"inappropriate content|content (?:management )?policy|flagged (?:as|by|for)|不合规|敏感内容|违规"
"""Words of a content filter: DashScope, Azure, Z.ai. An account can be meant, too."""
_SENT = r"(?:content|prompt|input|output|response|message|completion|text)s?"
_BLOCKED_CONTENT = _any(
    rf"requires moderation|(?:{_SENT}|request) (?:was|is|has been) flagged",  # OpenRouter
    rf"\b{_SENT} {_FEW_WORDS}(?:violates?|violated|blocked)\b",  # xAI, Cloudflare
    rf"blocked by {_FEW_WORDS}(?:guardrail|moderation|(?:content|safety) (?:filter|check|polic))",
    rf"(?:failed|violat\w+) {_FEW_WORDS}(?:content safety|safety check|guardrail)",  # Azure's APIM
    r"guardrail (?:raised|intervened|checks? (?:[\w'-]+ ){0,5}failed)|safety_check_type",  # litellm, Portkey
)
"""Words of a filter that name what they refuse: no key and no account."""
_LOCKED = r"account (?:has been|is|was) (?:\w+ )?(?:suspended|disabled|banned|blocked|terminated|restricted)"

_NOTHING = r"limit(?: of|:| set to| is) ?0\b"
"""Words of a limit that allows nothing (Databricks)."""
_NUMBER = r"(\d[\d,_]*(?:\.\d+)? ?[km]?)\b"
_LIMIT = rf"(?:limit|maximum)(?: is| of|)[\s:=(]{{0,4}}{_NUMBER}"
_REQUESTED = (
    r"(?:requested|request (?:has|had|contains|of|size|needs|needed|requires|is|was))"
    rf"(?: about| around| of| up to)?[\s:=(~]{{0,4}}{_NUMBER}"
)
_NUMBERS = rf"{_LIMIT}[^\n]{{0,100}}?{_REQUESTED}"
_NUMBERS_BACK = rf"{_REQUESTED}[^\n]{{0,100}}?{_LIMIT}"

# -- the table -------------------------------------------------------------------------------------

_NEVER_ABOUT_RATE: frozenset[int | None] = frozenset({400, 401, 402, 404, 405, 410, 413, 415, 422})

RULES: tuple[Rule, ...] = (
    # A filter that refuses the content (OpenRouter's moderation, Azure through gateways), not the key.
    Rule(
        "invalid",
        codes=r"\b(?:contentfilter|contentpolicyviolation|datainspectionfailed|invalidprompt)\b",
        unless=FAULTS,
        statuses=frozenset({400, 403, 500, None}),
    ),
    Rule(
        "invalid",
        words=_BLOCKED_CONTENT,
        unless=f"{_RETRY}|{FAULTS}|{_LOCKED}",
        but=frozenset({401, 402, 408, 429, 503, 504, 529}),
    ),
    # OpenRouter: the money is reserved by requests that are still running.
    Rule("rate_limit", codes="inflightbudget"),
    Rule("rate_limit", words="in-flight requests", statuses=frozenset({402})),
    Rule("invalid", codes=_LARGE_CODES),
    # DashScope says that the quota is insufficient where it means tokens a minute
    # (can1357/oh-my-pi PR 8476; Model Studio's error codes, "token-limit").
    Rule("quota", words="free allocated quota exceeded"),
    Rule(
        "rate_limit",
        codes="insufficientquota|allocationquota",
        words=r"#token-limit|\ballocated quota exceeded|" + _SHORT,
        unless=_LONG,
    ),
    Rule("quota", codes=_EMPTY_CODES + "|insufficientquota"),
    # Google names the limits. One of a day does not pass soon, and one of 0 never does.
    Rule("quota", limits="perday|permonth|value0\\b", wait_below=HOUR),
    Rule("quota", words=r"quota exceeded[^\n]{0,200}limit: 0\b", wait_below=HOUR),
    Rule("rate_limit", limits="perminute|persecond|perhour"),
    # A throttle that says when to come back, and advises to buy a higher rate.
    Rule(
        "rate_limit",
        words=rf"{_RATE_WORDS}|requests? per|{_SHORT}|(?:try again|retry) (?:in|after)",
        unless=f"{_BROKE_WORDS}|{_LONG}|limit: 0\\b",
        throttled=True,
        but=_NEVER_ABOUT_RATE | {403},
    ),
    # 403 is of the key, whatever it says of minutes (Google's "wait a few minutes" for an interface
    # that was just enabled), unless it speaks of a rate.
    Rule(
        "rate_limit",
        words=rf"{_RATE_WORDS}|requests? per|\b[rt]p[ms]\b|concurren",
        unless=f"{_BROKE_WORDS}|{_LONG}|{_NOTHING}|disabled|denied|billing",
        throttled=True,
        statuses=frozenset({403}),
    ),
    # "Rate limit exceeded. Please upgrade": advice, while nothing says that the account is empty.
    Rule(
        "rate_limit",
        words=_RATE_WORDS,
        unless=f"{_NO_MONEY}|{_LONG}|limit: 0\\b|{_LARGE_WORDS}|{_SMALLER_WORDS}|{_CONTEXT_WORDS}",
        statuses=frozenset({429}),
    ),
    Rule("quota", words=_EMPTY_WORDS, hints=_EMPTY_HINTS),
    # A request that is larger than the limit is refused at any rate, also as HTTP 429.
    Rule("invalid", words=_LARGE_WORDS, but=frozenset({401})),
    Rule(
        "invalid",
        words=_SMALLER_WORDS,
        unless="try again later|rate limit",
        throttled=False,
        but=frozenset({401, 503, 529}),
    ),
    Rule(
        "invalid",
        words=_CONTEXT_WORDS,
        unless="or try again later",
        throttled=False,
        but=frozenset({401, 503, 529}),
    ),
    # What a model can't do, whatever status says so: 400, 404, or 500 (llama.cpp, SGLang).
    Rule(
        "invalid",
        words=_UNABLE_WORDS,
        hints=_UNABLE_HINTS,
        unless="internal (?:server )?error|please (?:retry|try again)|timed? ?out|engine ?dead",
        but=frozenset({401, 402, 403, 408, 429, 503, 504, 529}),
    ),
    Rule("auth", codes=_KEY_CODES, statuses=frozenset({400, 500, None})),  # xAI, Gemini
    Rule("auth", words=_KEY_WORDS, statuses=frozenset({400, 500, None})),
    # What the request asks for, told without a status of its own.
    Rule(
        "invalid",
        words=f"{_ABSENT_WORDS}|{_UNFIT_WORDS}",
        unless=_FAULTY_WORDS,
        statuses=frozenset({500, None}),
    ),
    Rule(
        "invalid",
        words=_REFUSED_CONTENT,
        unless=f"{_RETRY}|{FAULTS}",
        statuses=frozenset({500, None}),
    ),
    Rule("auth", words=r"^(?:unauthorized|forbidden)\b", statuses=frozenset({None})),
    # Vertex names a metric, and its quotas are per minute (cloud.google.com/vertex-ai/docs/quotas).
    Rule("rate_limit", words="quota exceeded for (?:aiplatform|quota metric)", unless=_LONG),
    Rule("overloaded", codes=_BUSY_CODES, but=frozenset({400, 413})),
    Rule("overloaded", words=_BUSY_WORDS, statuses=frozenset({429, 500, 502, 520, None})),
    # A subscription's limit has the type of a rate limit at Kimi and MiniMax.
    Rule("quota", words=_PLAN_WORDS, throttled=False, statuses=frozenset({403, 429, None})),
    # Both words, "quota" and "rate", stand for limits of a minute and of a month.
    Rule("quota", codes=f"{_QUOTA_CODES}|{_RATE_CODES}", words=_LONG, throttled=False),
    Rule("rate_limit", codes="toomany(?:requests|tokens)", but=frozenset({413})),
    Rule("rate_limit", codes=_QUOTA_CODES, throttled=True),
    Rule("quota", codes=_QUOTA_CODES, unless=_RATE_WORDS, but=frozenset({401, 404, 413})),
    Rule("rate_limit", codes=_RATE_CODES, but=frozenset({413})),
    Rule("rate_limit", words=_QUOTA_WORDS, throttled=True, but=_NEVER_ABOUT_RATE),
    Rule("quota", words=_QUOTA_WORDS, but=frozenset({401, 404, 413})),
    Rule("quota", words=_LONG, throttled=False, statuses=frozenset({403, 429, None})),
    Rule(
        "rate_limit",
        words=_RATE_WORDS,
        unless=_NOTHING,
        but=_NEVER_ABOUT_RATE | {408, 503, 504, 529},
    ),
    # In a stream there is no status to say that a limit of a minute is one of the rate.
    Rule("rate_limit", words=rf"limit[^\n]{{0,80}}(?:{_SHORT})", statuses=frozenset({None})),
    # OpenAI; Kimi gives a used-up cycle this type, which is a quota above.
    Rule("auth", codes="accessterminated|accountdeactivated", words="terminat|violat|deactivat"),
)
"""The first row that fits decides; if none does, the status."""

BY_STATUS: dict[int, ErrorKind] = {
    401: "auth",
    402: "quota",
    403: "auth",
    407: "auth",  # of the proxy
    408: "timeout",
    409: "server",
    424: "server",  # TGI: generation failed; Bedrock and SageMaker: the model did
    425: "server",
    429: "rate_limit",
    498: "overloaded",  # Groq: flex capacity exceeded
    499: "server",  # Google: cancelled; nginx: its client has hung up
    501: "invalid",  # llama.cpp: it was not started for that; any other: it can't do it at all
    503: "overloaded",
    504: "timeout",
    529: "overloaded",  # Anthropic
}


def kind_of(seen: Evidence) -> ErrorKind:
    """Return the kind of an error: by the first of `RULES` that fits, or else by its status."""
    if _larger_than_the_limit(seen.words):
        return "invalid"
    throttled = seen.wait is not None or seen.told or re.search(_SHORT, seen.words) is not None
    for rule in RULES:
        if rule.fits(seen, throttled):
            return rule.kind
    status = seen.status
    if status is not None and status in BY_STATUS:
        return BY_STATUS[status]
    if status is not None and 300 <= status < 500:
        return "invalid"
    return "overloaded" if re.search(_BUSY_WORDS, seen.words) else "server"


def says_absent(words: str) -> bool:
    """Return whether a server's words say that it has no such model, or nothing at the address."""
    openrouter = "is not a valid model"
    return re.search(f"{_ABSENT_WORDS}|{openrouter}", words.lower()) is not None


def _larger_than_the_limit(words: str) -> bool:
    """Return whether a request asked for more than the whole limit: ``Limit 30000, Requested 59000``."""
    if found := re.search(_NUMBERS, words):
        limit, requested = found.groups()
    elif found := re.search(_NUMBERS_BACK, words):
        requested, limit = found.groups()
    else:
        return False
    if re.search(_LATE, words):  # seconds, not tokens
        return False
    # Of a few hundred, it may be requests: as many as are running, or the number of this one.
    fewest = 1 if "token" in words or "tpm" in words else FEWEST_TOKENS
    return _amount(requested) > _amount(limit) >= fewest


_LATE = "time[ds]? ?out"


def _amount(text: str) -> float:
    times = {"k": 1e3, "m": 1e6}.get(text[-1], 1.0)
    return float(re.sub(r"[^\d.]", "", text)[:18]) * times
