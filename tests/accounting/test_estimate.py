"""Tests of the most that a request can cost: above recorded costs, and honest about what is unknown."""

from __future__ import annotations

import base64
import builtins
import struct
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import TokenPrice
from trio_minillm._accounting import image_tokens as _media
from trio_minillm._accounting import tokenizers as _tokens
from trio_minillm._accounting.estimate import HIDDEN_TOKENS, MESSAGE_TOKENS, CostEstimate, estimate
from trio_minillm._types.cost import PriceTier
from trio_minillm._types.params import PARAM_NAMES

from ..support.paths import SHARED
from ..support.vocabulary import write_vocabulary

GPT = llm.openai("gpt-5-mini", api_key="k")
CLAUDE = llm.anthropic("claude-haiku-4-5", api_key="k")
QWEN = llm.compatible("qwen3-max", base_url="https://dashscope.aliyuncs.com/v1")
OTHER = llm.compatible("some-model", base_url="http://localhost:8080/v1")
PRICE = TokenPrice(input=1, output=10)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02"


# -- the answer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "params", "tokens"),
    [
        (GPT, {"max_tokens": 50}, 50),
        (GPT, {"max_tokens": 50, "n": 3}, 150),
        (llm.openai_responses("gpt-5-mini", api_key="k"), {"max_tokens": 50}, 50),
        (llm.openai_responses("gpt-5-mini", api_key="k"), {}, None),
        (OTHER, {"max_tokens": 50}, 50),
        (CLAUDE, {"extra": {"max_completion_tokens": 60}, "max_tokens": 50}, 60),
        (CLAUDE, {"extra": {"max_completion_tokens": -1}}, 8192),
        (CLAUDE, {}, 8192),  # the wire demands a number, and this is the one that is sent
        (CLAUDE, {"reasoning": 2000}, 10_192),
        (GPT, {}, None),
        (GPT, {"max_tokens": 50, "prediction": "as it is"}, None),
        (llm.compatible("grok-4", base_url="https://api.x.ai/v1"), {"max_tokens": 50}, None),
        # Qwen's thinking comes on top, and without a budget it has no bound.
        (QWEN, {"max_tokens": 50}, 50),
        (QWEN, {"max_tokens": 50, "reasoning": 2000}, 2050),
        (QWEN, {"max_tokens": 50, "reasoning": 2000, "n": 2}, 4100),
        (QWEN, {"max_tokens": 50, "reasoning": True}, None),
        (QWEN, {"max_tokens": 50, "reasoning": False}, 50),
    ],
)
def test_the_answer_is_bounded_by_its_parameter(model: Any, params: Any, tokens: int) -> None:
    got = estimate(model, "Hi.", price=PRICE, **params)
    assert got.output_tokens == tokens
    assert (got.output_amount is None) is (tokens is None)
    assert (got.amount is None) is (tokens is None)
    assert any(note.startswith("no bound for the answer") for note in got.notes) is (tokens is None)
    assert got.input_tokens is not None


# -- the text --------------------------------------------------------------------------------

LONGEST = "ﷺ"  # one character, three bytes, and 18 characters in NFKC


def test_a_text_has_no_more_tokens_than_bytes() -> None:
    short, long = estimate(GPT, "a").input_tokens, estimate(GPT, "a" * 1001).input_tokens
    assert short is not None
    assert long == short + 1000
    assert estimate(GPT, "é" * 1001).input_tokens == short - 1 + 2002
    wide = estimate(GPT, LONGEST * 1000).input_tokens
    assert wide is not None
    assert wide > 18_000


def test_what_stands_around_the_text_is_counted() -> None:
    one = estimate(GPT, [llm.user("a")])
    two = estimate(GPT, [llm.user("a"), llm.user("a")])
    frame = len(b'{"role":"user","content":"a"},')
    assert two.input_tokens == (one.input_tokens or 0) + MESSAGE_TOKENS + frame
    here = estimate(GPT, "a", tools=[llm.Tool(name="t")]).input_tokens or 0
    assert here - (one.input_tokens or 0) > HIDDEN_TOKENS["api.openai.com"][1] - 64
    far = estimate(llm.openai("gpt-5-mini", base_url="http://x.invalid/v1"), "a").input_tokens or 0
    assert far - (one.input_tokens or 0) == 1024 - 64


texts = st.text(max_size=60)
CALL_1 = llm.ToolCall(id="call_1", name="f")
turns = st.lists(
    st.one_of(
        st.builds(llm.user, texts).map(lambda message: [message]),
        st.builds(llm.system, texts).map(lambda message: [message]),
        st.builds(llm.assistant, texts.filter(bool)).map(lambda message: [message]),
        st.builds(lambda t: [llm.assistant(CALL_1), llm.tool_result(CALL_1, t)], texts),
    ),
    min_size=1,
    max_size=5,
).map(lambda turns: [llm.user("x"), *chain.from_iterable(turns)])


def encoders() -> list[Any]:
    """Whatever tokenizers are here, each without a download."""
    if find_spec("tiktoken") is None:
        return []
    import tiktoken

    tiny = tiktoken.Encoding(
        "tiny", pat_str=r"\s?\S+|\s", mergeable_ranks={bytes([b]): b for b in range(256)},
        special_tokens={},
    )  # fmt: skip
    offline = [
        tiktoken.get_encoding(name)
        for name in tiktoken.list_encoding_names()
        if name.endswith("_offline")
    ]
    return [tiny, *offline]


@pytest.mark.parametrize("encoder", encoders() or [None], ids=lambda e: getattr(e, "name", "-"))
def test_bytes_are_never_fewer_than_tokens(encoder: Any) -> None:
    if encoder is None:
        pytest.skip("no tokenizer is installed (the extra 'tokens')")

    @settings(deadline=None)
    @given(turns)
    def check(messages: list[llm.Message]) -> None:
        tokens = 0
        for message in messages:
            (part,) = message.parts
            text = part.text if isinstance(part, llm.TextPart | llm.ToolResult) else ""
            # The cookbook's rule: 3 around each message, the role, and 3 for the answer.
            tokens += 3 + len(encoder.encode_ordinary(message.role))
            tokens += len(encoder.encode_ordinary(text))
        for model in (GPT, CLAUDE, OTHER):
            bound = estimate(model, messages).input_tokens
            assert bound is not None
            assert bound >= tokens + 3

    check()


# -- a tokenizer of one's own ----------------------------------------------------------------


def words(text: str) -> int:
    return len(text.split())


def test_a_counter_of_ones_own() -> None:
    seen: list[str] = []

    def eighty(text: str) -> int:
        seen.append(text)
        return 81

    got = estimate(GPT, "How many?", count_tokens=eighty, tools=[llm.Tool(name="tool-one")])
    assert got.counted_by == "eighty"
    assert got.input_tokens == 81 + 11 + 256 + MESSAGE_TOKENS  # an eighth, rounded up
    assert "How many?" in seen[0]
    assert "tool-one" in seen[0]
    assert any("1/8 more" in note for note in got.notes)


class Counting:
    def __call__(self, text: str) -> int:
        return 0


def test_a_nameless_counter_is_called_after_its_type() -> None:
    assert estimate(GPT, "x", count_tokens=Counting()).counted_by == "Counting"
    assert estimate(GPT, "x").counted_by == "bytes"


@pytest.mark.parametrize("wrong", [-1, 1.5, None, True])
def test_a_count_is_a_count(wrong: Any) -> None:
    with pytest.raises(TypeError, match="number of tokens"):
        estimate(GPT, "x", count_tokens=lambda _: wrong)


# -- the likely length ----------------------------------------------------------------------------


def test_the_likely_length_is_that_of_the_text() -> None:
    def likely(messages: Any, **params: Any) -> int | None:
        return estimate(GPT, messages, **params).likely_input_tokens

    assert likely("x" * 40) == 3 + 4 + 10
    assert likely([llm.system("x" * 40), llm.user("x" * 41)]) == 3 + 2 * 4 + 10 + 11
    call = llm.ToolCall(id="c", name="name", arguments="y" * 36)
    turns = [llm.user(""), llm.assistant(call), llm.tool_result("c", "z" * 80)]
    assert likely(turns) == 3 + 3 * 4 + 10 + 20
    tool = llm.Tool(name="f", parameters={"type": "object", "properties": {}})
    assert (likely("x" * 40, tools=[tool]) or 0) > 17 + 20
    notes = llm.document(b"n" * 400, media_type="text/plain")
    assert estimate(CLAUDE, llm.user(notes), max_tokens=1).likely_input_tokens == 3 + 4 + 100
    picture = estimate(GPT, llm.user("x" * 40, llm.image(png(64, 64))))
    assert picture.likely_input_tokens is not None
    assert 17 < picture.likely_input_tokens <= (picture.input_tokens or 0)
    paper = llm.document(b"%PDF-1.7", media_type="application/pdf")
    assert likely(llm.user(paper)) is None


def test_the_likely_length_is_counted_where_something_counts() -> None:
    found = estimate(GPT, "one two three", count_tokens=lambda text: len(text.split()))
    assert found.likely_input_tokens == 3 + 4 + 3


# -- tiktoken, from its folder only ----------------------------------------------------------

GPT4 = llm.openai("gpt-4", api_key="k")


@pytest.fixture
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tiktoken's with one vocabulary in it, out of another package's data."""
    path = write_vocabulary(tmp_path)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.load.read_file", _no_network)
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    return path


def _no_network(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("tiktoken went to the network")


def test_an_encoding_whose_vocabulary_is_here(vocabulary: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 50
    tight = estimate(GPT4, text, count_tokens="cl100k_base")
    assert tight.counted_by == "cl100k_base"
    assert tight.input_tokens is not None
    loose = estimate(GPT4, text).input_tokens or 0
    assert 501 < tight.input_tokens < loose / 2


def test_an_encoding_at_hand(vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _tokens.encoding_at_hand("gpt-4") == "cl100k_base"
    assert _tokens.encoding_at_hand("gpt-5") is None  # its vocabulary is not here
    assert _tokens.encoding_at_hand("davinci") is None  # of another encoding
    assert _tokens.encoding_at_hand("claude") is None
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert _tokens.encoding_at_hand("gpt-4") is None


def test_nothing_is_fetched(vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary.write_bytes(b"cut short")  # tiktoken would throw it away and fetch it anew
    with pytest.raises(FileNotFoundError, match="TIKTOKEN_CACHE_DIR"):
        estimate(GPT4, "x", count_tokens="cl100k_base")
    assert vocabulary.exists()
    vocabulary.unlink()
    for folder in (str(vocabulary.parent), ""):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        with pytest.raises(FileNotFoundError):
            estimate(GPT4, "x", count_tokens="cl100k_base")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(vocabulary.parent))
    with pytest.raises(FileNotFoundError):
        estimate(GPT4, "x", count_tokens="cl100k_base")


def test_an_encoding_must_be_the_models() -> None:
    pytest.importorskip("tiktoken", reason="the extra 'tokens' is not installed")
    with pytest.raises(ValueError, match="its encoding is o200k_base"):
        estimate(GPT, "x", count_tokens="cl100k_base")
    with pytest.raises(ValueError, match="not known to tiktoken"):
        estimate(CLAUDE, "x", count_tokens="o200k_base")
    with pytest.raises(ValueError, match="unknown encoding"):
        estimate(GPT, "x", count_tokens="p50k_base")


def test_without_tiktoken_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tiktoken":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'trio-minillm\[tokens\]'"):
        estimate(GPT, "x", count_tokens="o200k_base")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = """
import sys
from trio_minillm._accounting.estimate import estimate
import trio_minillm as llm
estimate(llm.openai("m", api_key="k"), "x")
print("tiktoken" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


# -- pictures, sound, documents --------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "picture", "tokens"),
    [
        # Anthropic: patches of 28, or the older rule where that is more.
        ("claude-opus-5-5", llm.image(png(1024, 1024)), 1399),
        ("claude-opus-5-5", llm.image(png(280, 280)), 105),
        ("claude-opus-5-5", llm.image(png(1, 8000)), 286),
        ("claude-opus-5-5", llm.image(png(4032, 3024)), 4784),
        ("claude-opus-5-5", llm.image("https://x.example/y.png"), 4784),
        ("anthropic/claude-haiku-4.5", llm.image(b"?", media_type="image/png"), 4784),
        # OpenAI: tiles or patches, whichever is more, as the model may count in either.
        ("gpt-4o", llm.image(png(1024, 1024), detail="high"), 2520),
        ("gpt-5.4", llm.image(png(4032, 3024), detail="high"), 3779),
        ("gpt-5.4", llm.image(png(4032, 3024), detail="low"), 3779),
        ("gpt-6", llm.image(png(4032, 3024)), 14365),
        ("gpt-6", llm.image(png(10, 10)), 765),
        ("gpt-6", llm.image(png(20_000, 10), detail="high"), 1538),
        ("gpt-6", llm.image("https://x.example/y.png", detail="high"), 3779),
        ("gpt-6", llm.image("https://x.example/y.png"), None),
        ("gpt-4o-mini", llm.image("https://x.example/y.png"), 48_169),
        ("openai/gpt-4o-mini", llm.image(png(1024, 1024)), 2833 + 4 * 5667),
        # Others: no rule is known.
        ("gpt-oss-120b", llm.image(png(10, 10)), None),
        ("some-model", llm.image(png(10, 10)), None),
    ],
    ids=str,
)
def test_a_picture_is_bounded_by_its_vendors_rule(
    model: str, picture: llm.ImagePart, tokens: int | None
) -> None:
    assert _media.image_tokens(picture, model) == tokens


def test_a_picture_is_not_counted_as_its_base64() -> None:
    small = llm.compatible("claude-x", base_url="http://x.invalid/v1")
    heavy = png(280, 280) + bytes(100_000)
    got = estimate(small, [llm.user("What?", llm.image(heavy))])
    none = estimate(small, [llm.user("What?", llm.image(png(0, 0)))])
    assert got.input_tokens is not None
    assert none.input_tokens is not None
    assert none.input_tokens - got.input_tokens == 4784 - 105
    assert got.input_tokens < 2000
    assert "images: at most 105 tokens by their vendor's rules" in got.notes


def test_pictures_in_a_tools_answer_count_too() -> None:
    shown = llm.tool_result("call_1", llm.image(png(280, 280)), llm.image(png(280, 280)))
    asked = llm.assistant(llm.ToolCall(id="call_1", name="look", arguments="{}"))
    with_two = estimate(CLAUDE, [llm.user("Look."), asked, shown])
    assert "images: at most 210 tokens by their vendor's rules" in with_two.notes


PDF = llm.document(b"%PDF-1.7 " + bytes(1000))


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (OTHER, llm.image(png(10, 10))),
        (OTHER, llm.audio(b"ID3 sound")),
        (OTHER, PDF),
        (CLAUDE, PDF),
        (CLAUDE, llm.document("https://x.example/y.pdf")),
        (CLAUDE, llm.document(b"Cited.", media_type="text/plain", citations=True)),
    ],
    ids=str,
)
def test_where_no_rule_is_known_there_is_no_bound(model: Any, part: Any) -> None:
    got = estimate(model, [llm.user("What?", part)], price=PRICE, max_tokens=10)
    assert (got.input_tokens, got.input_amount, got.amount) == (None, None, None)
    assert got.output_amount == Decimal("0.0001")
    assert any(note.startswith("no bound: ") for note in got.notes)


def test_a_document_of_text_is_text() -> None:
    one = estimate(CLAUDE, [llm.user(llm.document(b"word", media_type="text/plain"))])
    two = estimate(CLAUDE, [llm.user(llm.document(b"word" * 100, media_type="text/plain"))])
    assert two.input_tokens == (one.input_tokens or 0) + 396


SIZES = {
    "png": png(640, 480),
    "gif": b"GIF89a" + struct.pack("<HH", 640, 480),
    "jpeg": b"\xff\xd8\xff\xe0\x00\x04JF\xff\xff\xd0\xff\xc4\x00\x03x\xff\xc0\x00\x11\x08"
    + struct.pack(">HH", 480, 640),
    "webp": b"RIFF????WEBPVP8X????????" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"),
    "webp, lossless": b"RIFF????WEBPVP8L????\x2f" + struct.pack("<I", 639 | 479 << 14),
    "webp, lossy": b"RIFF????WEBPVP8 ???????\x9d\x01\x2a" + struct.pack("<HH", 640, 480),
}


@pytest.mark.parametrize("kind", SIZES)
def test_the_size_of_a_picture(kind: str) -> None:
    assert _media.image_size(SIZES[kind]) == (640, 480)


@pytest.mark.parametrize(
    "data",
    [b"", b"?", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02", b"RIFF????WEBPXXXX", png(0, 9)[:24]],
)
def test_a_size_that_can_not_be_told(data: bytes) -> None:
    assert _media.image_size(data) is None


@given(st.sampled_from(sorted(SIZES)), st.binary(max_size=40), st.integers(0, 60))
def test_no_head_of_a_picture_is_too_broken(kind: str, tail: bytes, keep: int) -> None:
    found = _media.image_size(SIZES[kind][:keep] + tail)
    assert found is None or min(found) > 0


# -- no bound at all -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (CLAUDE, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (CLAUDE, {"mcp_servers": [{"type": "url", "url": "https://x.example", "name": "x"}]}),
        (GPT, {"web_search_options": {}}),  # empty, and on for all that
        (llm.openrouter("m", api_key="k"), {"plugins": [{"id": "web"}]}),
        (llm.openrouter("m:online", api_key="k"), {}),
        (llm.compatible("groq/compound", base_url="http://x.invalid/v1"), {}),
        (OTHER, {"extra": {"search_parameters": {"mode": "auto"}}}),
    ],
    ids=str,
)
def test_a_server_that_searches_has_no_bound(model: Any, params: Any) -> None:
    got = estimate(model, "Hi.", price=PRICE, max_tokens=10, **params)
    assert (got.input_tokens, got.output_tokens, got.amount) == (None, None, None)


def test_tools_of_ones_own_are_bounded() -> None:
    own = [
        llm.Tool(name="a"),
        {"type": "function", "function": {"name": "b"}},
        {"type": "custom", "custom": {"name": "c"}},
    ]
    assert estimate(GPT, "Hi.", tools=own).input_tokens is not None


# -- money -----------------------------------------------------------------------------------


def test_the_sum() -> None:
    got = estimate(GPT, "Hi.", price=PRICE, max_tokens=100)
    assert got.input_tokens is not None
    assert got.input_amount == Decimal(got.input_tokens).scaleb(-6)
    assert got.output_amount == Decimal("0.001")
    assert got.amount == got.input_amount + got.output_amount
    assert msgspec.json.decode(msgspec.json.encode(got), type=CostEstimate) == got


def test_the_models_own_price_and_none() -> None:
    priced = msgspec.structs.replace(GPT, price=PRICE)
    assert estimate(priced, "Hi.", max_tokens=1).amount is not None
    dearer = estimate(priced, "Hi.", max_tokens=1, price=TokenPrice(input=2, output=20)).amount
    assert dearer == 2 * (estimate(priced, "Hi.", max_tokens=1).amount or 0)
    free = estimate(GPT, "Hi.", max_tokens=1)
    assert (free.input_amount, free.output_amount, free.amount) == (None, None, None)
    assert "no amount: the model has no price" in free.notes


def rate(model: Any, price: TokenPrice, messages: Any = "Hi.", **params: Any) -> Decimal:
    """USD per million tokens that the input is taken to cost."""
    got = estimate(model, messages, price=price, max_tokens=1, **params)
    assert got.input_amount is not None
    assert got.input_tokens is not None
    return got.input_amount.scaleb(6) / got.input_tokens


CACHED = TokenPrice(input=2, output=1, cache_read=1, cache_write=3, cache_write_1h=4)


@pytest.mark.parametrize(
    ("model", "messages", "params", "dollars"),
    [
        (CLAUDE, "Hi.", {}, 2),
        (CLAUDE, "Hi.", {"cache": True}, 3),
        (CLAUDE, "Hi.", {"cache": "1h"}, 4),
        (CLAUDE, [llm.user(llm.text("Hi.", cache="1h"))], {}, 4),
        (CLAUDE, '"cache_control":{"ttl":"1h"}', {}, 2),  # words are not marks
        (GPT, "Hi.", {}, 3),  # writes to a cache without being asked to
        (llm.openrouter("m", api_key="k"), "Hi.", {"cache": "1h"}, 4),
    ],
)
def test_the_dearest_rate_that_can_apply(
    model: Any, messages: Any, params: Any, dollars: int
) -> None:
    assert rate(model, CACHED, messages, **params) == dollars


def test_pictures_and_sound_cost_what_they_cost() -> None:
    price = TokenPrice(input=1, output=1, image_input=5, image_output=6, audio_output=7)
    assert rate(GPT, price) == 5
    out = [
        estimate(GPT, "Hi.", price=price, max_tokens=1, **more).output_amount
        for more in ({}, {"modalities": ["text", "audio"]})
    ]
    assert out == [Decimal("0.000006"), Decimal("0.000007")]


def test_the_tiers_within_reach() -> None:
    tiers = (PriceTier(above=100_000, input=3, output=4), PriceTier(above=200_000, input=2))
    price = TokenPrice(input=1, output=1, tiers=tiers)
    assert rate(GPT, price) == 1
    assert rate(GPT, price, "a" * 100_000) == 3
    assert rate(GPT, price, "a" * 200_000) == 3  # the dearest, not the last
    unbounded = estimate(OTHER, [llm.user(PDF)], price=price, max_tokens=1_000_000)
    assert unbounded.output_amount == 4


FLEX = msgspec.structs.replace(PRICE, input=Decimal("0.5"), output=1, service_tier="flex")
PRIORITY = msgspec.structs.replace(PRICE, input=10, output=20, service_tier="priority")
TIERED = msgspec.structs.replace(PRICE, variants=(FLEX, PRIORITY))


@pytest.mark.parametrize(
    ("price", "given", "output_rate"),
    [
        (TIERED, {}, PRICE.output),
        (TIERED, {"service_tier": "default"}, PRICE.output),
        (TIERED, {"service_tier": "priority"}, 20),
        (TIERED, {"service_tier": "fast"}, 20),
        (TIERED, {"service_tier": "flex"}, PRICE.output),  # it may be served at the standard rate
        (TIERED, {"service_tier": "auto"}, 20),
        (PRICE, {"service_tier": "flex"}, PRICE.output),
        (PRICE, {"service_tier": "priority"}, None),
        (PRICE, {"service_tier": "unheard-of"}, None),
        (PRIORITY, {"service_tier": "priority"}, 20),
        (FLEX, {"service_tier": "default"}, None),
    ],
)
def test_an_estimate_is_for_the_dearest_tier_that_may_serve(
    price: TokenPrice, given: dict[str, Any], output_rate: Any
) -> None:
    got = estimate(GPT, "Hi.", price=price, max_tokens=1_000_000, **given)
    assert got.output_amount == output_rate
    if output_rate is None:
        assert any("no amount: there is no price of the service tier" in n for n in got.notes)


@pytest.mark.parametrize("given", [{"speed": "fast"}, {"inference_geo": "us"}])
def test_an_estimate_has_no_amount_for_a_speed_or_region_without_a_price(given: Any) -> None:
    assert estimate(CLAUDE, "Hi.", price=PRICE, max_tokens=1, **given).amount is None
    assert estimate(CLAUDE, "Hi.", price=PRICE, max_tokens=1).amount is not None


def test_another_model_may_answer() -> None:
    routed = llm.openrouter("m", api_key="k", price=PRICE)
    assert any("most expensive server" in n for n in estimate(routed, "Hi.", max_tokens=1).notes)
    got = estimate(routed, "Hi.", max_tokens=1, models=["a/b"])
    assert (got.amount, got.output_tokens) == (None, 1)
    assert "no amount: another model may answer, at a price of its own" in got.notes


def test_opaque_blocks_are_named() -> None:
    thought = llm.assistant(
        llm.ReasoningPart(text="Hm.", signature="abc", wire="anthropic"), "Yes."
    )
    got = estimate(CLAUDE, [llm.user("Hi."), thought, llm.user("Why?")])
    assert any("opaque blocks" in note for note in got.notes)
    assert not any("opaque blocks" in note for note in estimate(CLAUDE, "Hi.").notes)


# -- the same errors as a stream's -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_token": 5}, TypeError, "unknown parameter: max_token"),
        ({"temperature": float("nan")}, ValueError, "finite"),
        ({"n": 0}, ValueError, "n must be"),
        ({"n": True}, TypeError, "n must be"),
        ({"extra": {"max_completion_tokens": 5}}, ValueError, "extra must not contain"),
        ({"top_k": 5}, ValueError, "not a parameter"),
        ({"messages": []}, ValueError, "no message"),
        ({"messages": "\ud800"}, ValueError, "not valid Unicode"),
        ({"messages": [llm.user(llm.document("https://x.example/y.pdf"))]}, ValueError, "bytes"),
        ({"price": 5}, TypeError, "must be TokenPrice, not int"),
        ({"model": "gpt-5"}, TypeError, "must be a Model"),
    ],
)
def test_misuse_is_told_as_by_a_stream(arguments: Any, error: Any, text: str) -> None:
    given = {"model": GPT, "messages": "Hi.", **arguments}
    with pytest.raises(error, match=text):
        estimate(**given)


def test_none_is_the_same_as_leaving_out() -> None:
    assert estimate(GPT, "Hi.", max_tokens=None, n=None) == estimate(GPT, "Hi.")


# -- what recorded requests did cost ---------------------------------------------------------


def recorded() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Recorded requests with messages, and the usage that they ended with."""
    out = []
    for dialect in ("openai_chat", "openrouter", "anthropic"):
        for path in sorted((SHARED / "streams" / dialect).glob("*.expected.json")):
            usage = msgspec.json.decode(path.read_bytes()).get("usage") or {}
            about = path.with_name(path.name.replace(".expected.json", ".json"))
            source = msgspec.json.decode(about.read_bytes())
            if "messages" in (source["request"] or {}) and usage.get("input_total") is not None:
                out.append((f"{dialect}/{about.stem}", source, usage))
    return out


def asked(source: dict[str, Any]) -> tuple[llm.Model, list[llm.Message], dict[str, Any]]:
    """A recorded request as ours. ``ValueError`` where our vocabulary can't be fed with it."""
    body = source["request"]
    name = body.get("model") or source["model"]
    far = "https://elsewhere.example/v1"
    if source["dialect"] == "anthropic":
        home = source["provider"] == "anthropic"
        model = llm.anthropic(name, api_key="k", base_url=None if home else far)
        messages = [text_of(raw) for raw in [*system_of(body), *body["messages"]]]
    else:
        messages = [llm.message_of(raw) for raw in body["messages"]]
        if source["dialect"] == "openrouter":
            model = llm.openrouter(name, api_key="k")
        elif source["provider"] == "openai":
            model = llm.openai(name, api_key="k")
        else:
            model = llm.compatible(name, base_url=far)
    fields = ("max_tokens", "tools", "response_format", "n", "plugins", "web_search_options")
    params = {name: body[name] for name in fields if name in body}
    assert params.keys() <= PARAM_NAMES
    if "max_completion_tokens" in body:
        params["max_tokens"] = body["max_completion_tokens"]
    return model, messages, params


def system_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": body["system"]}] if body.get("system") else []


def text_of(raw: dict[str, Any]) -> llm.Message:
    """A message of Anthropic's that is text alone."""
    content = raw["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if any(part["type"] != "text" for part in parts):
        raise ValueError("not text alone")
    return llm.Message(role=raw["role"], parts=tuple(llm.text(part["text"]) for part in parts))


def test_recorded_requests_came_to_less() -> None:
    found = recorded()
    if not found:
        pytest.skip(f"no recorded streams in {SHARED}; TRIO_MINILLM_SHARED names its folder")
    seen: Counter[str] = Counter()
    for name, source, usage in found:
        try:
            model, messages, params = asked(source)
        except ValueError:
            seen["not in our vocabulary"] += 1
            continue
        got = estimate(model, messages, **params)
        seen["no bound" if got.input_tokens is None else "bounded"] += 1
        if got.input_tokens is not None:
            assert got.input_tokens >= usage["input_total"], name
        if got.output_tokens is not None:
            # Where reasoning is beside the output, the total says so.
            spent = (usage.get("total") or 0) - usage["input_total"]
            assert got.output_tokens >= max(spent, usage["output"] or 0), name
    assert seen["bounded"] > 8 * (seen["no bound"] + seen["not in our vocabulary"])


def test_base64_in_a_data_url_is_a_picture_too() -> None:
    url = "data:image/png;base64," + base64.b64encode(png(280, 280)).decode()
    claude = llm.openrouter("anthropic/claude-x", api_key="k")
    raw = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    assert "images: at most 105 tokens by their vendor's rules" in estimate(claude, [raw]).notes


def test_a_router_s_text_completions_have_the_note_on_its_price() -> None:
    router = llm.text_completions("m", base_url="https://openrouter.ai/api/v1", api_key="k")
    found = llm.estimate(router, "Once", price=llm.TokenPrice(input=1, output=1), max_tokens=1)
    assert any("most expensive server" in note for note in found.notes)


def test_the_prompt_of_text_completions_is_text() -> None:
    """In Responses, it is a stored one, to which the server adds."""
    base = llm.text_completions("m", base_url="http://127.0.0.1:1/v1")
    found = llm.estimate(base, "Once upon a time", max_tokens=10, best_of=3)
    assert found.input_tokens is not None
    assert found.output_tokens == 30
    longer = llm.estimate(base, "Once upon a time" * 100, max_tokens=10)
    assert longer.input_tokens is not None
    assert longer.input_tokens - found.input_tokens > 1_000
    tokens = llm.estimate(base, list(range(1000, 2000)), max_tokens=10)
    assert tokens.input_tokens is not None
    assert tokens.input_tokens > 1_000
    assert tokens.likely_input_tokens is not None
    assert tokens.likely_input_tokens - 1_000 < 20
    stored = llm.openai_responses("m", api_key="k")
    unbounded = llm.estimate(stored, "Hi", extra={"prompt": {"id": "p"}})
    assert unbounded.input_tokens is None
    assert any("prompt lets the server add" in note for note in unbounded.notes)
