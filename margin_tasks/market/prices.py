"""Index levels from venue quotes, and one usable price row for every instrument that is held or traded."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import parse_text
from margin_tasks.contracts.plausibility import implausible_prices, plausible_levels
from margin_tasks.contracts.rules import CLOCK_TOLERANCE_MINUTES
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.market.asset_policy import AssetPricePolicy, policy_prices, split_references
from margin_tasks.market.policy import MarketPolicy, PriceFallback

USD = "USD"
ACCEPTED_MARK = "mark"
ASSET_POLICY = "asset_policy"
TOKENISED_ASSET = "tokenised_asset"

PRICE_COLUMNS = (
    "mark_price",
    "forward_price",
    "mark_iv",
    "previous_mark_price",
    "previous_forward_price",
    "previous_mark_iv",
    "funding_rate",
    "discount_rate",
    "dividend_yield",
)
_RATES = ("discount_rate", "dividend_yield")


def index_prices(
    index_quotes: pd.DataFrame,
    *,
    cutoff_at: datetime,
    policy: MarketPolicy,
    asset_policies: tuple[AssetPricePolicy, ...] = (),
) -> pd.DataFrame:
    """Form the index of every quoted asset: the median of its fresh venues without the outliers.

    A quote is stale when it is older than ``policy.maximum_quote_age_seconds`` at the cut-off; one that was taken later
    than the clock tolerance of the contracts after the cut-off is left out altogether. Of the fresh ones, those
    further than ``policy.maximum_deviation`` from their median are left out and the median is taken again. Where fewer
    than ``policy.minimum_venues`` remain, the median of all quotes up to the cut-off stands in, marked as a fallback.

    A tokenised asset has the price of its own policy instead (``market.asset_policy.policy_prices``), in which that
    median is its market. Reference values are no venue and count nowhere else.

    Args:
        index_quotes: typed feed: ``asset, venue, index_price, observed_at``.
        cutoff_at: naive UTC instant of the valuation.
        policy: rules in force.
        asset_policies: price policies of tokenised assets in force.

    Returns:
        One row for each asset with such a quote, sorted: ``asset, index_price`` (USD), ``venue_count`` (used),
        ``is_fallback``, ``observed_at`` of the newest observation behind the price, ``price_floor``.
    """
    quotes = index_quotes[["asset", "venue", "index_price", "observed_at"]].sort_values(["asset", "venue"])
    quotes, references = split_references(quotes)
    quotes = quotes[quotes["observed_at"] <= cutoff_at + timedelta(minutes=CLOCK_TOLERANCE_MINUTES)]
    age = pd.Timestamp(cutoff_at) - quotes["observed_at"]
    fresh = quotes[age <= pd.Timedelta(seconds=policy.maximum_quote_age_seconds)]
    median = fresh.groupby("asset")["index_price"].transform("median")
    agreeing = fresh[(fresh["index_price"] / median - 1.0).abs() <= policy.maximum_deviation]
    used = agreeing.groupby("asset")["index_price"].agg(["median", "count"])
    every = quotes.groupby("asset")["index_price"].agg(["median", "count"])
    newest = quotes.groupby("asset")["observed_at"].max()
    used = used.reindex(every.index)
    is_fallback = ~(used["count"] >= policy.minimum_venues)
    chosen = used.mask(is_fallback, every)
    market = pd.DataFrame(
        {
            "asset": every.index.to_numpy(dtype=object),
            "index_price": chosen["median"].to_numpy(dtype=np.float64),
            "venue_count": chosen["count"].to_numpy(dtype=np.int64),
            "is_fallback": is_fallback.to_numpy(dtype=bool),
            "observed_at": newest.to_numpy(),
        }
    )
    return policy_prices(market, references=references, cutoff_at=cutoff_at, policies=asset_policies)


def index_price_of(assets: pd.Series, *, index: pd.DataFrame) -> pd.Series:
    """USD price of each asset named in a series; USD itself is 1.

    Raises:
        MarginError: PRICE_UNAVAILABLE, naming the assets without any quote.
    """
    prices = pd.concat([index.set_index("asset")["index_price"].drop(USD, errors="ignore"), pd.Series({USD: 1.0})])
    found = assets.map(prices)
    if found.isna().any():
        named = ", ".join(sorted(set(assets[found.isna()])))
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE, f"index_quotes: no price of {named}; deliver at least one venue for each"
        )
    return found.astype(np.float64)


def refused_rows(quarantine: pd.DataFrame, *, feed: str) -> pd.DataFrame:
    """Read the rows of a feed that the gate set aside: text columns as delivered, one row for each distinct row."""
    texts = quarantine.loc[quarantine["feed"] == feed, "raw_row"].drop_duplicates()
    return pd.DataFrame([json.loads(text) for text in texts])


def instrument_prices(
    instruments: pd.DataFrame,
    *,
    listed: pd.DataFrame,
    market_prices: pd.DataFrame,
    refused: pd.DataFrame,
    index: pd.DataFrame,
    cutoff_at: datetime,
    policy: MarketPolicy,
    asset_policies: tuple[AssetPricePolicy, ...] = (),
) -> pd.DataFrame:
    """Find a price row for every instrument, falling back in the policy's order where no mark was accepted.

    Both ways take the forward of its expiry today (between neighbouring expiries, from the index outwards), so that no
    one is settled or valued in yesterday's market. ``model``: that forward itself and, for options, the implied
    volatility between the neighbouring strikes of the same expiry. ``previous_mark``: what the instrument's own refused
    row says of the day before, moved to today: its previous mark times forward / previous forward and, for options, its
    previous implied volatility. Where ``mark_price`` is left empty the pricing model fills it.

    A tokenised asset is valued by its price policy, whatever mark is delivered: its mark is the index of its underlying
    over that of its settlement currency.

    Args:
        instruments: typed rows of the contract master to price.
        listed: every row of the contract master; the model reads curves and smiles off all that have a mark.
        market_prices: accepted rows of the feed.
        refused: rows of the feed that the gate set aside, as :func:`refused_rows` reads them.
        index: result of :func:`index_prices`.
        cutoff_at: naive UTC instant of the valuation.
        policy: rules in force.
        asset_policies: price policies of tokenised assets in force, those that ``index`` was formed with.

    Returns:
        One row for each instrument, sorted: ``instrument_id``, the price columns of the feed, ``price_source``,
        ``is_fallback_price``.

    Raises:
        MarginError: PRICE_UNAVAILABLE, naming the instruments for which nothing stands in, and tokenised assets without
            a price policy.
    """
    columns = ["instrument_id", *PRICE_COLUMNS]
    wanted = instruments.sort_values("instrument_id", ignore_index=True)
    rows = wanted.merge(market_prices[columns], on="instrument_id", how="left", validate="one_to_one")
    is_missing = rows["mark_price"].isna()
    rows["price_source"] = ACCEPTED_MARK
    rows["is_fallback_price"] = is_missing
    if is_missing.any():
        priced = listed.merge(market_prices[columns], on="instrument_id", validate="one_to_one")
        unmarked = wanted[is_missing]
        stand_in = _stand_in(
            unmarked, priced=priced, refused=refused, index=index, cutoff_at=cutoff_at, order=policy.price_fallbacks
        )
        rows.loc[is_missing, stand_in.columns] = stand_in
    is_token = wanted["product_type"] == TOKENISED_ASSET
    if is_token.any():
        tokens = wanted[is_token]
        _refuse_without_policy(tokens, asset_policies=asset_policies)
        worth = index_price_of(tokens["underlying"], index=index)
        rows.loc[is_token, "forward_price"] = worth
        rows.loc[is_token, "mark_price"] = worth / index_price_of(tokens["settlement_currency"], index=index)
        rows.loc[is_token, "price_source"] = ASSET_POLICY
    return rows[[*columns, "price_source", "is_fallback_price"]]


def previous_index_prices(
    instruments: pd.DataFrame,
    *,
    market_prices: pd.DataFrame,
    price_history: pd.DataFrame,
    index: pd.DataFrame,
    business_date: date,
) -> pd.DataFrame:
    """Index level of the previous clearing day for every asset of ``index``.

    The feeds carry it as the previous forward of the underlying's perpetuals, spots and tokenised assets (their forward
    is the index).
    Where none is listed, the last daily close before the business date stands in, then today's index.

    Args:
        instruments: typed rows of the contract master.
        market_prices: accepted rows of the feed.
        price_history: typed feed.
        index: result of :func:`index_prices`.
        business_date: the clearing day.

    Returns:
        ``asset, index_price``, one row for each asset of ``index``.
    """
    is_at_index = instruments["product_type"].isin(["perpetual", "spot", TOKENISED_ASSET])
    at_index = instruments[is_at_index].merge(market_prices, on="instrument_id")
    stated = at_index.groupby("underlying")["previous_forward_price"].median()
    before = price_history[price_history["price_date"] < business_date].sort_values("price_date", kind="stable")
    closed = before.groupby("asset")["close_price"].last()
    today = index.set_index("asset")["index_price"]
    previous = stated.reindex(today.index).fillna(closed.reindex(today.index)).fillna(today)
    return pd.DataFrame({"asset": today.index, "index_price": previous.to_numpy(dtype=np.float64)})


def _refuse_without_policy(tokens: pd.DataFrame, *, asset_policies: tuple[AssetPricePolicy, ...]) -> None:
    without = tokens[~tokens["underlying"].isin([policy.asset for policy in asset_policies])]
    if len(without):
        named = ", ".join(without["instrument_id"])
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"instruments: no price policy is in force for the underlying of {named}: add one to "
            "margin_tasks/market/asset_definitions",
        )


def _stand_in(
    missing: pd.DataFrame,
    *,
    priced: pd.DataFrame,
    refused: pd.DataFrame,
    index: pd.DataFrame,
    cutoff_at: datetime,
    order: tuple[PriceFallback, ...],
) -> pd.DataFrame:
    delivered = _readable(refused).reindex(missing["instrument_id"]).set_axis(missing.index)
    levels = plausible_levels(priced, index=index.set_index("asset")["index_price"])
    is_implausible = implausible_prices(missing.join(delivered), levels=levels)
    delivered = delivered.mask(is_implausible.reindex(columns=delivered.columns, fill_value=False))
    forward = _forward_at_expiry(missing, priced=priced, index=index, cutoff_at=cutoff_at)
    is_option = missing["product_type"] == "option"
    nothing = pd.Series(np.nan, index=missing.index)
    moved = (delivered["previous_mark_price"] * forward / delivered["previous_forward_price"]).mask(is_option)
    marks = {"previous_mark": moved, "model": nothing}
    volatilities = {
        "previous_mark": delivered["previous_mark_iv"].where(is_option),
        "model": _volatility_at_strike(missing, priced=priced),
    }
    is_usable = {
        "previous_mark": volatilities["previous_mark"].where(is_option, moved).notna(),
        "model": volatilities["model"].notna() | ~is_option,
    }
    stand_in = delivered.assign(
        forward_price=forward, price_source="", **_rates(missing, delivered=delivered, priced=priced)
    )
    for source in reversed(order):
        stand_in["mark_price"] = stand_in["mark_price"].mask(is_usable[source], marks[source])
        stand_in["mark_iv"] = stand_in["mark_iv"].mask(is_usable[source], volatilities[source])
        stand_in["price_source"] = stand_in["price_source"].mask(is_usable[source], source)
    is_unpriced = stand_in["price_source"] == ""
    if is_unpriced.any():
        named = ", ".join(missing.loc[is_unpriced, "instrument_id"])
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"market_prices: no mark, no model price and no readable previous mark for {named}, "
            "held or traded; deliver a price row",
        )
    return stand_in


def _readable(refused: pd.DataFrame) -> pd.DataFrame:
    """Price columns of refused rows by instrument; what the contract would not accept in its field is NaN."""
    rows = refused.reindex(columns=["instrument_id", *PRICE_COLUMNS])
    rows = rows[rows["instrument_id"].notna()].drop_duplicates("instrument_id").set_index("instrument_id")
    columns = {column.name: column for column in FEEDS["market_prices"].columns}
    numbers = {}
    for name in PRICE_COLUMNS:
        values = parse_text(rows[name].to_numpy(dtype=object), columns[name]).typed.astype(np.float64)
        field = columns[name].field
        low = -np.inf if field.minimum is None else field.minimum
        high = np.inf if field.maximum is None else field.maximum
        is_above = values > low if field.is_minimum_exclusive else values >= low
        numbers[name] = np.where(is_above & (values <= high), values, np.nan)
    return pd.DataFrame(numbers, index=rows.index)


def _forward_at_expiry(
    missing: pd.DataFrame, *, priced: pd.DataFrame, index: pd.DataFrame, cutoff_at: datetime
) -> pd.Series:
    spot = index_price_of(missing["underlying"], index=index)
    forward = spot.copy()
    for underlying, rows in missing[missing["expiry_at"].notna()].groupby("underlying"):
        dated = priced[(priced["underlying"] == underlying) & priced["expiry_at"].notna()]
        curve = dated.groupby("expiry_at")["forward_price"].median()
        seconds = (pd.DatetimeIndex([cutoff_at, *curve.index]) - cutoff_at).total_seconds()
        levels = [spot[rows.index[0]], *curve]
        forward[rows.index] = np.interp((rows["expiry_at"] - cutoff_at).dt.total_seconds(), seconds, levels)
    return forward


def _rates(missing: pd.DataFrame, *, delivered: pd.DataFrame, priced: pd.DataFrame) -> dict[str, pd.Series]:
    """Rates of the refused rows, else medians of the options of the same expiry, else of the same underlying."""
    keys = ["underlying", "expiry_at"]
    options = priced[priced["product_type"] == "option"]
    of_expiry = missing[keys].merge(options.groupby(keys)[list(_RATES)].median(), on=keys, how="left")
    of_underlying = missing[["underlying"]].merge(
        options.groupby("underlying")[list(_RATES)].median(), on="underlying", how="left"
    )
    medians = of_expiry[list(_RATES)].fillna(of_underlying[list(_RATES)]).set_axis(missing.index)
    is_option = missing["product_type"] == "option"
    return {name: delivered[name].fillna(medians[name]).where(is_option) for name in _RATES}


def _volatility_at_strike(missing: pd.DataFrame, *, priced: pd.DataFrame) -> pd.Series:
    volatility = pd.Series(np.nan, index=missing.index)
    options = priced[priced["mark_iv"].notna()]
    for key, rows in missing[missing["product_type"] == "option"].groupby(["underlying", "expiry_at"]):
        same_expiry = options[(options["underlying"] == key[0]) & (options["expiry_at"] == key[1])]
        smile = same_expiry.groupby("strike_price")["mark_iv"].median()
        if len(smile):
            volatility[rows.index] = np.interp(rows["strike_price"], smile.index, smile)
    return volatility
