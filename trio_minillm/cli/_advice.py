"""Advice: what a user can do about an error, in a few words."""

from __future__ import annotations

import os
import re

import trio_minillm as llm

from ..local._named import KEYS
from ..providers._base import host_of

SEND_ADVICE = {
    "refused": "check the address, and that the server runs",
    "no_such_host": "check the address",
    "unreachable": "check the network and the address; trying again is safe",
    "address": "check the address",
    "certificate": "check the address; trying again does not help",
    "tls": "check the address; trying again does not help",
    "open_files": "raise the limit (ulimit -n), or send fewer at once",
}
"""Words on what to do by `SendError.reason`."""


def last_of(error: Exception | None) -> Exception | None:
    """Return the error itself, or that of the newest attempt if there were several."""
    return error.last_error if isinstance(error, llm.RetriesExhausted) else error


def advice(error: Exception, variable: str | None, *, paid: bool = True) -> str:
    """Return what to do about an error, in a few words, or an empty text.

    ``variable`` is the environment variable of the key. ``paid`` says that an answer was asked for, which
    costs money each time.
    """
    error = last_of(error) or error
    if isinstance(error, llm.RefusedUntil):
        return "run the same command again then"
    if isinstance(error, llm.RefusedError | llm.ProviderError):
        return _advice_on_refusal(error, variable, paid=paid)
    if isinstance(error, llm.SendError):
        return SEND_ADVICE.get(
            error.reason or "", "check the address and the network; trying again is safe"
        )
    if isinstance(error, llm.InvalidAnswer):
        return "the answer is not as --schema asks; sending the request again costs again"
    if not isinstance(error, llm.StreamError):
        return ""
    if not paid:
        return "check the address, then try again"
    clocks = "the --timeout-… options set the clocks; " * isinstance(error, llm.StreamTimeout)
    return f"{clocks}sending the request again costs again"


def _advice_on_refusal(
    error: llm.RefusedError | llm.ProviderError, variable: str | None, *, paid: bool
) -> str:
    if error.status == 407:
        return "check the proxy's user name and password"
    if error.kind == "auth":
        if variable and not os.environ.get(variable):
            return f"no key was sent: set {variable}"
        return f"check the key in {variable}, and its permissions" if variable else "check the key"
    if paid and isinstance(error, llm.RefusedError) and _may_lack_model(error):
        return _list_of_models(error, variable)
    if error.status in (404, 405):
        return ""  # the message has the address, and says what may be wrong
    if error.status == 413:
        return "send a shorter request, or use a model that accepts longer ones"
    if error.kind == "invalid":
        return "fix the request: check the model's name, the address and the options"
    if error.kind == "quota":
        return "add credit or raise the limit; waiting does not help"
    return "wait, then try again"


_UNKNOWN_MODEL = (
    r"(?is)model.{0,120}\b(?:not (?:found|exist)|(?:does not|doesn't) exist|unknown|unsupported|invalid)"
    r"|\b(?:no such|unknown|invalid|not a valid) model\b|model_not_found"
)
"""Words of a refusal that says the model is not there."""


def _may_lack_model(error: llm.RefusedError) -> bool:
    """Return whether a refusal may be that of a model which the server does not have."""
    if error.status == 404:
        return True
    said = f"{error.code} {error.info.message}"
    return error.status in (400, 422) and re.search(_UNKNOWN_MODEL, said) is not None


_OWN_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "gemini": "generativelanguage.googleapis.com",
    "openrouter": "openrouter.ai",
}


def _list_of_models(error: llm.RefusedError, variable: str | None) -> str:
    """Return the command that lists the models where a request was refused; ``variable`` tells where."""
    kind = next((kind for kind in (*_OWN_HOSTS, "compatible") if KEYS[kind] == variable), None)
    if kind is None:
        return ""
    elsewhere = _OWN_HOSTS.get(kind) != host_of(error.url or "")
    return f"trio-minillm models {kind}{' --base-url URL' * elsewhere} lists the models"
