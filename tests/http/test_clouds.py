"""The ways to the clouds that docs/deploying/keys.md shows, as they stand there.

The packages of the clouds are taken if they are installed; stand-ins with the same names are, if not. The
servers verify tokens and signatures by themselves.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import importlib.util
import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm.testing import (
    Reply,
    ServedRequest,
    anthropic_events,
    openai_events,
    reply,
    serve,
    sse,
)

from ..support.paths import doc

NAME, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"
JSON = {"content-type": "application/json"}


def block(word: str) -> str:
    """The example of the page that has this word."""
    page = doc("keys.md").read_text()
    (found,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if word in b)
    return found


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# -- AWS -----------------------------------------------------------------------------------------


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keyed(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(
    method: str, url: str, headers: dict[str, str], signed: list[str], body: bytes, scope: str
) -> str:
    """Signature of version 4, by AWS's documentation."""
    where = urlsplit(url)
    query = "&".join(sorted(where.query.split("&"))) if where.query else ""
    lines = [f"{name}:{headers[name].strip()}\n" for name in signed]
    canonical = "\n".join(
        [
            method,
            quote(where.path, safe="/-_.~"),
            query,
            "".join(lines),
            ";".join(signed),
            hashed(body),
        ]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashed(canonical.encode())])
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = keyed(key, part)
    return keyed(key, text).hex()


def verified(request: ServedRequest) -> Reply:
    """The answer of a server that takes signatures of version 4 alone."""
    given = request.headers.get("authorization", "")
    found = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential={NAME}/([^,]+), SignedHeaders=([\w;-]+), Signature=(\w+)",
        given,
    )
    if found is None:
        return reply(b"{}", status=403, headers=JSON)
    scope, names, made = found.groups()
    signed = names.split(";")
    url = f"http://{request.headers['host']}{request.target}"
    wanted = signature(request.method, url, request.headers, signed, request.body, scope)
    good = {"host", "x-amz-date"} <= {*signed} and scope.endswith("/us-west-2/bedrock/aws4_request")
    if not good or made != wanted:
        return reply(b"{}", status=403, headers=JSON)
    messages = urlsplit(request.target).path.endswith("/messages")
    return reply(*(anthropic_events if messages else openai_events)("signed"))


class AWSRequest:
    def __init__(self, *, method: str, url: str, data: bytes) -> None:
        self.method, self.url, self.data = method, url, data
        self.headers: dict[str, str] = {}


class SigV4Auth:
    def __init__(self, credentials: Any, service: str, region: str) -> None:
        self.credentials, self.service, self.region = credentials, service, region

    def add_auth(self, request: AWSRequest) -> None:
        date = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": urlsplit(request.url).netloc, "x-amz-date": date}
        scope = f"{date[:8]}/{self.region}/{self.service}/aws4_request"
        names = sorted(headers)
        made = signature(request.method, request.url, headers, names, request.data, scope)
        request.headers["X-Amz-Date"] = date
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={made}"
        )


class Session:
    def get_credentials(self) -> Any:
        frozen = SimpleNamespace(access_key=NAME, secret_key=SECRET, token=None)
        return SimpleNamespace(get_frozen_credentials=lambda: frozen)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put modules in the place of those that are not installed."""

    def add(name: str, **contents: Any) -> None:
        made = ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)
        parent, _, last = name.rpartition(".")
        if parent in sys.modules:
            monkeypatch.setattr(sys.modules[parent], last, made, raising=False)

    return add


def example(word: str) -> dict[str, Any]:
    names: dict[str, Any] = {"llm": llm, "trio": trio}
    exec(block(word), names)
    return names


async def test_bedrock_verifies_what_is_signed(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", NAME)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    if not installed("botocore"):
        modules("botocore")
        modules("botocore.auth", SigV4Auth=SigV4Auth)
        modules("botocore.awsrequest", AWSRequest=AWSRequest)
        modules("botocore.session", Session=Session)
    names = example("sigv4")
    target: llm.Model = names["target"]
    claude: llm.Model = names["claude"]
    assert target.base_url.endswith(".amazonaws.com/openai/v1")
    assert claude.base_url.endswith(".amazonaws.com/anthropic")
    async with serve(verified) as server:
        for base in (f"{server.url}/openai/v1", f"{server.url}/model/a:0/x?b=2&a=1"):
            here = msgspec.structs.replace(target, base_url=base)
            async with llm.open_client() as client:
                assert (await client.complete(here, "Hi")).content == "signed"
                same = msgspec.structs.replace(claude, base_url=base)
                assert (await client.complete(same, "Hi")).content == "signed"
                unsigned = msgspec.structs.replace(here, sign=lambda request: {"x-other": "1"})
                with pytest.raises(llm.RefusedError):
                    await client.complete(unsigned, "Hi")


# -- tokens --------------------------------------------------------------------------------------


def bearer_of(*tokens: str) -> Any:
    def answer(request: ServedRequest) -> Reply:
        if request.headers.get("authorization") not in [f"Bearer {token}" for token in tokens]:
            return reply(b"{}", status=401, headers=JSON)
        if "generateContent" in request.target or "streamGenerateContent" in request.target:
            said = {"content": {"parts": [{"text": "taken"}]}, "finishReason": "STOP"}
            return reply(sse({"candidates": [said], "usageMetadata": {"totalTokenCount": 3}}))
        return reply(*openai_events("taken"))

    return answer


class Credentials:
    """Google's, as far as they are used: a token that is refreshed when it is not valid."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.refreshed = 0

    @property
    def valid(self) -> bool:
        return self.token is not None

    def refresh(self, way: Any) -> None:
        self.refreshed += 1
        self.token = f"ya29.{self.refreshed}-0123456789"


async def test_vertex_takes_the_token_and_it_is_refreshed_once(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = Credentials()
    default = lambda scopes: (credentials, "my-project")  # noqa: E731 - google.auth's own name
    if installed("google") and installed("google.auth"):
        import google.auth

        monkeypatch.setattr(google.auth, "default", default)
    else:
        modules("google")
        modules("google.auth", default=default)
        modules("google.auth.transport")
        modules("google.auth.transport.requests", Request=object)
    names = example("google_token")
    target: llm.Model = names["target"]
    claude: llm.Model = names["claude"]
    assert "projects/my-project" in target.base_url
    assert "projects/my-project" in claude.provider.endpoint_url(claude)
    assert claude.api_key is None
    async with serve(bearer_of("ya29.1-0123456789", "ya29.2-0123456789")) as server:
        here = msgspec.structs.replace(target, base_url=f"{server.url}/v1/projects/p/locations/x")
        async with llm.open_client() as client:

            async def ask() -> None:
                assert (await client.complete(here, "Hi")).content == "taken"

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask)
            assert credentials.refreshed == 1
            credentials.token = None
            await ask()
            assert credentials.refreshed == 2


async def test_azure_takes_a_token_of_entra_id(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DefaultAzureCredential:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            assert scopes == ("https://cognitiveservices.azure.com/.default",)
            return SimpleNamespace(token=TOKEN, expires_on=1 << 40, refresh_on=None)

    def get_bearer_token_provider(credential: Any, *scopes: str) -> Any:
        return lambda: credential.get_token(*scopes).token

    if installed("azure") and installed("azure.identity"):
        import azure.identity

        monkeypatch.setattr(azure.identity, "DefaultAzureCredential", DefaultAzureCredential)
    else:
        modules("azure")
        modules(
            "azure.identity",
            DefaultAzureCredential=DefaultAzureCredential,
            get_bearer_token_provider=get_bearer_token_provider,
        )
    target: llm.Model = example("azure_token")["target"]
    assert target.provider.server == "azure"  # type: ignore[attr-defined]
    async with serve(bearer_of(TOKEN)) as server, llm.open_client() as client:
        here = msgspec.structs.replace(target, base_url=f"{server.url}/openai/v1")
        assert (await client.complete(here, "Hi")).content == "taken"


@pytest.mark.parametrize(
    ("make", "base", "header"),
    [
        (llm.compatible, "https://r.openai.azure.com/openai/v1", "api-key"),
        (llm.openai_responses, "https://r.openai.azure.com/openai/v1", "api-key"),
        (llm.anthropic, "https://r.services.ai.azure.com/anthropic", "x-api-key"),
    ],
)
def test_a_token_is_a_bearers_where_a_key_has_a_header_of_its_own(
    make: Any, base: str, header: str
) -> None:
    for key, name in ((TOKEN, "authorization"), ("0123456789abcdef", header), ("eyJx", header)):
        model = make("m", base_url=base, api_key=key)
        headers = model.provider.auth_headers(model)
        assert headers[name] == (f"Bearer {key}" if name == "authorization" else key)
        assert len(headers.keys() & {"authorization", "api-key", "x-api-key"}) == 1
