"""Prices from the package genai-prices: the real one, and what it calculates itself."""

from __future__ import annotations

import builtins
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import CostResolution, TokenPrice, Usage
from trio_minillm._accounting import known_prices as module
from trio_minillm._accounting.known_prices import known_price
from trio_minillm._types.cost import PriceTier
from trio_minillm.providers._pricing import priced_cost

genai_prices = pytest.importorskip("genai_prices", reason="the extra 'prices' is not installed")

from genai_prices import types  # noqa: E402
from genai_prices.data import providers  # noqa: E402

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SOURCE = f"genai-prices {genai_prices.__version__}"
LISTED = module.list_date()


def models() -> list[tuple[types.Provider, types.ModelInfo]]:
    return [(p, m) for p in providers for m in p.models]


def price_of(name: str, **given: Any) -> TokenPrice:
    found = known_price(name, **given)
    assert found is not None
    return found


# -- finding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        llm.openai("gpt-5-mini", api_key="k"),
        llm.anthropic("claude-haiku-4-5", api_key="k"),
        llm.openrouter("anthropic/claude-haiku-4.5", api_key="k"),
        llm.openrouter("anthropic/claude-haiku-4.5:nitro", api_key="k"),
        llm.compatible("gpt-4o", base_url="https://mine.openai.azure.com/openai/v1"),
        llm.compatible("kimi-k2-0905-preview", base_url="https://api.moonshot.ai/v1"),
        llm.compatible("gemini-2.5-pro", base_url="https://generativelanguage.googleapis.com/v1"),
        "gpt-5-mini",
        "GPT-5-mini",
        "openai:gpt-5-mini",
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "anthropic/claude-haiku-4.5",
        "openrouter:anthropic/claude-haiku-4.5",
        "groq:llama-3.1-8b-instant",
    ],
    ids=str,
)
def test_what_is_known(model: Any) -> None:
    found = known_price(model, at=NOW)
    assert found is not None
    assert found.input > 0
    assert found.output > 0
    assert found.source == SOURCE


@pytest.mark.parametrize(
    "model",
    [
        # The same names at another address are somebody else's, at a price of their own.
        llm.openai("gpt-5-mini", base_url="http://localhost:8000/v1"),
        llm.openai("gpt-5-mini", base_url="http://127.0.0.1/v1"),
        llm.openai("gpt-5-mini", base_url="https://proxy.example.org/v1"),
        llm.openai("gpt-5-mini", base_url="https://api.openai.com.example.org/v1"),
        llm.openai("gpt-5-mini", base_url="http://api.openai.com/v1"),
        llm.anthropic("claude-haiku-4-5", base_url="http://[::1]:80/api.anthropic.com"),
        llm.compatible("gemini-2.5-pro", base_url="https://localhost/x.googleapis.com"),
        llm.openai("gpt-9000", api_key="k"),
        llm.openrouter("gpt-5-mini:unheard-of", api_key="k"),
        "",
        "gpt-9000",
        "llama3:8b",
        "anthropic/claude-haiku-4.5:online",
        "nobody/nothing",
        "openai:claude-haiku-4-5",
    ],
    ids=str,
)
def test_what_is_not_known(model: Any) -> None:
    assert known_price(model, at=NOW) is None


def test_a_model_is_a_model() -> None:
    with pytest.raises(TypeError, match="not int"):
        known_price(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "address", "serves"),
    [
        (r"https://api\.openai\.com", "https://api.openai.com/v1", True),
        (r"https://api\.openai\.com", "https://API.openai.com:443/v1", True),
        (r"https://api\.openai\.com", "https://api.openai.company/v1", False),
        (r"https://api\.moonshot\.", "https://api.moonshot.cn/v1", True),
        (r"https://api\.moonshot\.", "https://api.moonshot.example.org/v1", False),
        (r"https://api\.meta\.ai(?:/|$)", "https://api.meta.ai", True),
        (r"https://api\.meta\.ai(?:/|$)", "https://api.meta.aid", False),
        (r"https://router\.example/groq", "https://router.example/groq/v1", True),
        (r"https://(.*\.)?googleapis\.com", "https://x.googleapis.com/y", True),
    ],
)
def test_an_address_is_matched_to_its_end(pattern: str, address: str, serves: bool) -> None:
    assert module.serves(pattern, address) is serves


def test_the_price_of_haiku() -> None:
    price = price_of("anthropic:claude-haiku-4-5", at=NOW)
    assert (price.input, price.output) == (1, 5)
    assert (price.cache_read, price.cache_write) == (Decimal("0.1"), Decimal("1.25"))
    assert (price.cache_write_1h, price.web_search) == (2, Decimal("0.01"))


def test_a_free_model_is_free_and_says_so() -> None:
    price = price_of("openai/gpt-oss-20b:free", at=NOW)
    assert (price.input, price.output) == (0, 0)


def test_tiers() -> None:
    price = price_of("anthropic:claude-sonnet-4-5", at=NOW)
    (tier,) = price.tiers
    assert (price.input, tier.above, tier.input, tier.output) == (3, 200_000, 6, Decimal("22.5"))


# -- when ------------------------------------------------------------------------------------


def test_the_price_of_the_day() -> None:
    before = price_of("openai:o3", at=datetime(2025, 6, 1, tzinfo=UTC))
    after = price_of("openai:o3", at=datetime(2025, 6, 10))
    assert before.input > after.input
    assert before.as_of == after.as_of
    assert after.as_of is not None
    assert date(2025, 6, 10) <= after.as_of <= datetime.now(UTC).date()
    today = price_of("openai:o3")  # more variants may have a price today than then
    assert msgspec.structs.replace(today, variants=after.variants) == after


def test_a_price_that_changes_with_the_hour_needs_the_hour() -> None:
    changing = next(
        f"{p.id}:{m.id}"
        for p, m in models()
        if isinstance(m.prices, list)
        and any(isinstance(c.constraint, types.TimeOfDateConstraint) for c in m.prices)
    )
    assert known_price(changing) is None
    hours = {price_of(changing, at=NOW.replace(hour=h, minute=30)).input for h in range(24)}
    assert len(hours) > 1


def test_what_is_priced_apart() -> None:
    standard = price_of("gpt-5", at=NOW)
    flex = price_of("gpt-5", at=NOW, context={"service_tier": "flex"})
    assert flex.input * 2 == standard.input
    assert (flex.service_tier, flex.variants) == ("flex", ())
    assert known_price("gpt-5", at=NOW, context={"service_tier": "unheard-of"}) is None
    assert known_price("gpt-5", at=NOW, context={"service_tier": "flex", "x": "y"}) is None
    # A discount that began later is no price of the time before.
    early = datetime(2020, 1, 1)
    assert known_price("gpt-5", at=early, context={"service_tier": "flex"}) is None


# -- what can't be said ----------------------------------------------------------------------


def listed(monkeypatch: pytest.MonkeyPatch, prices: Any, name: str = "m") -> TokenPrice | None:
    """The price of a model that the list is made to have."""
    info = types.ModelInfo(id=name, match=types.ClauseEquals(name), prices=prices)
    place = types.Provider(id="p", name="P", api_pattern="https://p", models=[info])
    monkeypatch.setattr("genai_prices.data.providers", [place])
    return known_price(f"p:{name}", at=NOW)


@pytest.mark.parametrize(
    "more",
    [
        {"requests_kcount": Decimal(5)},
        {"output_reasoning_mtok": Decimal(3)},
        {"input_video_mtok": Decimal(3)},
        {"audio_hours": Decimal(3)},
        {"a_kind_of_tomorrow_mtok": Decimal(3)},
        {"web_searches_kcount": types.TieredPrices(base=Decimal(1), tiers=[])},
    ],
)
def test_no_price_rather_than_a_wrong_one(monkeypatch: pytest.MonkeyPatch, more: Any) -> None:
    plain = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)}
    assert listed(monkeypatch, types.ModelPrice(**plain)) is not None
    assert listed(monkeypatch, types.ModelPrice(**plain, **more)) is None


def test_half_a_price_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(monkeypatch, types.ModelPrice(input_mtok=Decimal(1))) is None
    assert listed(monkeypatch, types.ModelPrice(output_mtok=Decimal(1))) is None
    assert listed(monkeypatch, types.ModelPrice()) is None
    assert listed(monkeypatch, types.ModelPrice(), "m:free") is not None


def test_a_price_that_has_not_begun_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    later = types.StartDateConstraint(date(2099, 1, 1))
    prices = types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))
    got = listed(monkeypatch, [types.ConditionalPrice(later, prices=prices)])
    assert got == TokenPrice(input=1, output=1, as_of=LISTED, source=SOURCE)


def test_the_list_is_dated_by_its_newest_price(monkeypatch: pytest.MonkeyPatch) -> None:
    module.list_date.cache_clear()
    started = [types.StartDateConstraint(date(2024, month, 1)) for month in (2, 3, 1)]
    started.append(types.StartDateConstraint(date(2999, 1, 1)))  # announced
    prices = types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))
    entries = [types.ConditionalPrice(constraint, prices=prices) for constraint in started]
    try:
        assert listed(monkeypatch, entries).as_of == date(2024, 3, 1)
        module.list_date.cache_clear()
        monkeypatch.setattr("genai_prices.data.__file__", "in/a.zip/data.py")
        assert listed(monkeypatch, entries).as_of is None
    finally:
        monkeypatch.undo()
        module.list_date.cache_clear()
        assert module.list_date() == LISTED  # for the others


def test_each_rate_has_its_own_tiers_there_and_each_tier_its_rates_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tiered(base: int, *tiers: tuple[int, int]) -> types.TieredPrices:
        steps = [types.Tier(start, Decimal(price)) for start, price in tiers]
        return types.TieredPrices(base=Decimal(base), tiers=steps)

    prices = types.ModelPrice(
        input_mtok=tiered(1, (10, 2), (20, 3)),
        output_mtok=tiered(5, (20, 6)),
        cache_read_mtok=Decimal("0.5"),
        storage_searches_kcount=Decimal(9),
    )
    assert listed(monkeypatch, prices) == TokenPrice(
        input=1,
        output=5,
        cache_read=0.5,
        tiers=(PriceTier(above=10, input=2), PriceTier(above=20, input=3, output=6)),
        as_of=LISTED,
        source=SOURCE,
    )


# -- the same total as theirs ----------------------------------------------------------------

counts = st.integers(0, 600_000)


@st.composite
def usages(draw: st.DrawFn, *, mixed: bool = False) -> Usage:
    """Final usage, sound and pictures inside the whole. Beside cached tokens only if ``mixed``."""
    plain, read, written = draw(counts), draw(counts), draw(counts)
    media = draw(st.booleans())
    if media and not mixed:
        read = written = 0
    heard = draw(st.integers(0, plain)) if media else 0
    out = draw(counts)
    said = draw(st.integers(0, out))
    return Usage(
        uncached_input_tokens=plain,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=draw(st.integers(0, written)),
        completion_tokens=out,
        audio_input_tokens=heard,
        image_input_tokens=draw(st.integers(0, plain - heard)) if media else 0,
        audio_output_tokens=said,
        image_output_tokens=draw(st.integers(0, out - said)),
        web_searches=draw(st.integers(0, 5)),
        final=True,
    )


def theirs(info: types.ModelInfo, place: types.Provider, usage: Usage, at: datetime) -> Decimal:
    spent = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.completion_tokens,
        input_audio_tokens=usage.audio_input_tokens,
        input_image_tokens=usage.image_input_tokens,
        output_audio_tokens=usage.audio_output_tokens,
        output_image_tokens=usage.image_output_tokens,
        web_searches=usage.web_searches,
    )
    return info.calc_price(spent, place, genai_request_timestamp=at).total_price


PRICED = [
    (place, info)
    for place, info in models()
    if place.find_model(info.id) is info and known_price(f"{place.id}:{info.id}", at=NOW)
]

times_of_day = st.times().map(lambda t: datetime.combine(date(2026, 11, 20), t, UTC))
days = st.dates(date(2024, 1, 1), date(2027, 12, 31)).map(
    lambda d: datetime.combine(d, time(12), UTC)
)


def test_most_models_have_a_price() -> None:
    assert len(PRICED) > 0.8 * len(models())


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(PRICED), usages(), times_of_day | days)
def test_our_total_is_theirs(
    found: tuple[types.Provider, types.ModelInfo], usage: Usage, at: datetime
) -> None:
    place, info = found
    price = known_price(f"{place.id}:{info.id}", at=at)
    assume(price is not None)
    cost = priced_cost(usage, price)
    assert cost.amount == theirs(info, place, usage, at)
    covered = price is not None and price.web_search is not None
    assert (cost.resolution is CostResolution.RESOLVED) is (covered or not usage.web_searches)


SPECIAL = [
    (place, info)
    for place, info in PRICED
    if any("audio" in key or "image" in key for key in vars(info.get_prices(NOW)))
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SPECIAL), usages(mixed=True))
def test_sound_and_pictures_beside_cached_tokens_are_the_one_exception(
    found: tuple[types.Provider, types.ModelInfo], usage: Usage
) -> None:
    """They must be told which of the tokens were cached, or take it that none was; nobody says
    so on the wire, so we give the least that it can be, and say that it is a bound.
    """
    place, info = found
    assume(usage.cache_read_tokens or usage.cache_write_tokens)
    cost = priced_cost(usage, known_price(f"{place.id}:{info.id}", at=NOW))
    assert cost.amount is not None
    try:
        total = theirs(info, place, usage, NOW)
    except ValueError:  # "require explicit …"
        return
    assert cost.amount <= total
    if cost.resolution is CostResolution.RESOLVED:
        assert cost.amount == total


# -- optional --------------------------------------------------------------------------------


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("genai_prices"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'trio-minillm\[prices\]'"):
        known_price("gpt-5-mini")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, trio_minillm._accounting.known_prices; print('genai_prices' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_nothing_goes_over_the_network() -> None:
    code = """
import socket, threading
def refuse(*args, **kwargs): raise AssertionError("the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from trio_minillm._accounting.known_prices import known_price
assert known_price("gpt-5-mini") is not None
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_price_has_those_of_the_other_service_tiers() -> None:
    price = price_of("openai:gpt-5", at=NOW)
    assert price.service_tier is None
    tiers = {variant.service_tier: variant for variant in price.variants}
    assert {"flex", "priority", "batch"} <= tiers.keys()
    assert tiers["flex"] == price_of("openai:gpt-5", at=NOW, context={"service_tier": "flex"})
    assert price_of("openai:gpt-5", at=NOW, context={"service_tier": "default"}).variants == ()
    fast = price_of("anthropic:claude-opus-4-8", at=NOW, context={"speed": "fast"})
    assert fast.service_tier == "fast"
