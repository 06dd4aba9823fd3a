"""The figures of a clearing day: from gated feeds to valuations, requirements and margin calls.

Two steps. ``value`` prices every instrument that is held or traded, once for the whole clearing house. ``margin`` takes
some of the accounts and computes everything about them; the accounts may be divided in any way, each one's figures are
the same to the bit. Pure: frames in, frames out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.decisions import call_decisions
from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.collateral.policy import collateral_policy_in_force
from margin_tasks.collateral.terms import DayPrice, DayTerms, day_terms
from margin_tasks.collateral.valuation import value_collateral
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import empty_frame
from margin_tasks.contracts.tables import RISK
from margin_tasks.market.asset_policy import asset_price_policies_in_force
from margin_tasks.market.policy import market_policy_in_force
from margin_tasks.market.prices import USD, index_prices, instrument_prices, previous_index_prices, refused_rows
from margin_tasks.pricing.day_market import ONE_DAY, DayMarket, day_market
from margin_tasks.pricing.instruments import BoolArray, Instruments, IntArray
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.valuation import ContractValues, value_contracts
from margin_tasks.risk.amounts import (
    decimals_from_units,
    floats_from_units,
    multiply_units,
    to_units,
)
from margin_tasks.risk.arrays import (
    RiskArrays,
    risk_arrays,
    risk_arrays_frame,
    risk_arrays_from_frame,
    scenarios_frame,
)
from margin_tasks.risk.positions import Positions, positions_from_frames, refuse_oversized
from margin_tasks.risk.settlement import Settlement, settle
from margin_tasks.rulebooks.attribution import attribute, shares_frame, stand_alone_units
from margin_tasks.rulebooks.exposure import ContractFigures
from margin_tasks.rulebooks.methodology import MarginedMarket, Prepared, prepare
from margin_tasks.rulebooks.registry import approved, rulebook_in_force, rulebooks_in_force
from margin_tasks.rulebooks.requirement import (
    Requirement,
    components_frame,
    position_outcomes,
    requirement,
    requirements_frame,
    scenario_pnl_frame,
)
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.rulebooks.shares import Shares, shared_initial

Frames = Mapping[str, pd.DataFrame]

# Feeds in which a refused row leaves something unknown about the account that it names.
ACCOUNT_FEEDS = ("positions", "trades", "collateral_balances")

_SECONDS_PER_HOUR = 3600.0


def value(feeds: Frames, *, quarantine: pd.DataFrame, cutoff_at: datetime) -> dict[str, pd.DataFrame]:
    """Value every instrument held or traded, and run it through every scenario of every scan-based rulebook.

    Args:
        feeds: typed frames by feed, as the gate accepted them.
        quarantine: rows that the gate set aside.
        cutoff_at: naive UTC instant of the valuation; its day decides which policies and rulebooks are in force.

    Returns:
        ``valuations``, ``scenarios``, ``risk_arrays`` and ``collateral_terms``, with the columns of the contract,
        sorted by key.

    Raises:
        MarginError: PRICE_UNAVAILABLE when neither a price nor a fallback exists for an instrument.
    """
    market, index = market_and_index(feeds, quarantine=quarantine, cutoff_at=cutoff_at, business_date=cutoff_at.date())
    arrays = {
        rulebook.rulebook_id: _risk_arrays(rulebook, market.instruments, market.levels)
        for rulebook in rulebooks_in_force(cutoff_at.date())
        if rulebook.is_scanned
    }
    return _contracted(
        {
            "valuations": _valuations_frame(market),
            "scenarios": scenarios_frame(arrays, instruments=market.instruments),
            "risk_arrays": risk_arrays_frame(arrays, instruments=market.instruments),
            "collateral_terms": _collateral_terms(
                feeds["collateral_balances"],
                terms=_day_terms(feeds, index, cutoff_at=cutoff_at, business_date=cutoff_at.date()),
                index=index,
            ),
        }
    )


def margin(
    feeds: Frames,
    valued: Frames,
    *,
    quarantine: pd.DataFrame,
    account_ids: Sequence[str],
    cutoff_at: datetime,
    business_date: date,
    session: str = "EOD",
    pending: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Compute everything about some accounts: settlement, requirements under every rulebook, equity, calls.

    Args:
        feeds: typed frames by feed, as the gate accepted them.
        valued: result of :func:`value`, also when read back from Parquet.
        quarantine: rows that the gate set aside.
        account_ids: accounts to margin; any part of the ``accounts`` feed, also none.
        cutoff_at: naive UTC instant of the valuation.
        business_date: clearing day.
        session: EOD or ITD-nn.
        pending: account_id and pending_in (decimals, not negative): money received for calls and not yet in
            ``collateral_balances``, plus what open calls of earlier sessions still ask for. It is taken off what is
            called. None: no money is on its way.

    Returns:
        The tables of ``RISK`` that are about accounts, with the columns of the contract, sorted by key. Every account
        has a row in ``requirements`` for every rulebook, in ``account_margin`` and in ``requirement_changes``.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, PRICE_UNAVAILABLE or FIGURE_NOT_FINITE, naming account or instrument.
    """

    def margined(names: Sequence[str]) -> dict[str, pd.DataFrame]:
        return _margin(
            feeds,
            valued,
            quarantine=quarantine,
            account_ids=names,
            cutoff_at=cutoff_at,
            business_date=business_date,
            session=session,
            pending=pending,
        )

    account_ids = sorted(set(account_ids))
    try:
        return margined(account_ids)
    except MarginError as error:
        if error.reason is not FailureReason.FIGURE_NOT_FINITE:
            raise
        raise _naming_account(error, account_ids, margined=margined) from error


def _naming_account(
    error: MarginError, account_ids: Sequence[str], *, margined: Callable[[Sequence[str]], object]
) -> MarginError:
    """The error with the account that it is about: accounts do not depend on each other, so halves tell."""
    while len(account_ids) > 1:
        middle = len(account_ids) // 2
        for half in (account_ids[:middle], account_ids[middle:]):
            try:
                margined(half)
            except MarginError as again:
                error, account_ids = again, half
                break
        else:
            return error  # only all of them together break it
    return MarginError(error.reason, f"account {', '.join(account_ids)}: {error.message}")


def _margin(
    feeds: Frames,
    valued: Frames,
    *,
    quarantine: pd.DataFrame,
    account_ids: Sequence[str],
    cutoff_at: datetime,
    business_date: date,
    session: str,
    pending: pd.DataFrame | None,
) -> dict[str, pd.DataFrame]:
    accounts = feeds["accounts"][feeds["accounts"]["account_id"].isin(account_ids)].sort_values("account_id")
    absent = sorted(set(account_ids) - set(accounts["account_id"]))
    if absent:
        raise MarginError(FailureReason.NOT_FOUND, f"accounts: no {', '.join(absent)} in the feed")
    for rulebook_id in accounts["rulebook_id"].unique():
        rulebook_in_force(rulebook_id, business_date=business_date)

    market, index = market_and_index(feeds, quarantine=quarantine, cutoff_at=cutoff_at, business_date=business_date)
    held = feeds["collateral_balances"]
    held = held.loc[held["account_id"].isin(account_ids), ["account_id", "asset", "quantity"]]
    day = _day(
        feeds,
        valued,
        quarantine=quarantine,
        account_ids=account_ids,
        market=market,
        index=index,
        collateral=held,
        cutoff_at=cutoff_at,
    )
    is_conservative = day.is_conservative
    results = {
        rulebook.rulebook_id: (rulebook, *_today(rulebook, day=day, valued=valued))
        for rulebook in rulebooks_in_force(business_date)
    }
    own_rulebook = accounts["rulebook_id"].to_numpy(dtype=object)
    shares = {
        rulebook_id: attribute(result, is_attributed=own_rulebook == rulebook_id)
        for rulebook_id, (_, result, _) in results.items()
    }
    position_values = _position_values(day, results=results, shares=shares, own_rulebook=own_rulebook)
    requirements = pd.concat(
        [
            requirements_frame(
                result,
                account_ids=account_ids,
                is_conservative=is_conservative,
                is_attributed=(own_rulebook == rulebook_id) | (rulebook.methodology is None),
                stand_alone_units=stand_alone_units(result, arrays=arrays, is_conservative=is_conservative),
            )
            for rulebook_id, (rulebook, result, arrays) in results.items()
        ],
        ignore_index=True,
    )
    collateral_values = value_collateral(
        held,
        asset_prices=index[["asset", "index_price"]].rename(columns={"index_price": "asset_price_usd"}),
        terms=_day_terms(feeds, index, cutoff_at=cutoff_at, business_date=business_date),
        own_groups=_own_groups(accounts, feeds["members"]),
    )
    changes = _requirement_changes(day, results=results, own_rulebook=own_rulebook)
    call_policy = call_policy_in_force(business_date)
    margins = account_margin(
        requirements=requirements,
        collateral_values=collateral_values,
        position_values=position_values,
        accounts=accounts,
        requirement_changes=changes,
        policy=call_policy,
        session=session,
        pending=pending,
    )
    return _contracted(
        {
            "account_scenario_pnl": pd.concat(
                [scenario_pnl_frame(result, account_ids=account_ids) for _, result, _ in results.values()],
                ignore_index=True,
            ),
            "position_values": position_values,
            "requirement_components": pd.concat(
                [components_frame(result, account_ids=account_ids) for _, result, _ in results.values()],
                ignore_index=True,
            ),
            "requirement_shares": pd.concat(
                [
                    shares_frame(result, shares[rulebook_id], account_ids=account_ids)
                    for rulebook_id, (_, result, _) in results.items()
                ],
                ignore_index=True,
            ),
            "requirements": requirements,
            "collateral_values": collateral_values,
            "account_margin": margins,
            "requirement_changes": changes,
            "call_decisions": call_decisions(margins, session=session, policy=call_policy),
            "margin_calls": margin_calls(
                margins,
                business_date=business_date,
                session=session,
                cutoff_at=cutoff_at,
                policy=call_policy,
            ),
        }
    )


def requirements_under(
    rulebook: Rulebook,
    feeds: Frames,
    *,
    quarantine: pd.DataFrame,
    cutoff_at: datetime,
    business_date: date,
) -> pd.DataFrame:
    """Compute what the accounts that are under a rulebook would have to hold under another version of it.

    Arguments as for :func:`margin`; the version counts as in force on the day, whatever its effective date.

    Returns:
        ``account_id`` and ``initial_margin`` (decimals), sorted by account; to the same digit as :func:`margin` would
        compute them.

    Raises:
        MarginError: PRICE_UNAVAILABLE or FIGURE_NOT_FINITE.
    """
    own = feeds["accounts"]["rulebook_id"] == rulebook.rulebook_id
    account_ids = sorted(feeds["accounts"].loc[own, "account_id"])
    with approved([rulebook.model_copy(update={"effective_date": business_date})]):
        valued = value(feeds, quarantine=quarantine, cutoff_at=cutoff_at)
    market, index = market_and_index(feeds, quarantine=quarantine, cutoff_at=cutoff_at, business_date=business_date)
    held = feeds["collateral_balances"]
    day = _day(
        feeds,
        valued,
        quarantine=quarantine,
        account_ids=account_ids,
        market=market,
        index=index,
        collateral=held.loc[held["account_id"].isin(account_ids), ["account_id", "asset", "quantity"]],
        cutoff_at=cutoff_at,
    )
    result, arrays = _today(rulebook, day=day, valued=valued)
    frame = requirements_frame(
        result,
        account_ids=account_ids,
        is_conservative=day.is_conservative,
        is_attributed=np.ones(len(account_ids), dtype=np.bool_),
        stand_alone_units=stand_alone_units(result, arrays=arrays, is_conservative=day.is_conservative),
    )
    return frame[["account_id", "initial_margin"]].reset_index(drop=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginedAccount:
    """One account under one rulebook, with everything that its requirement was computed from.

    ``requirement`` holds this account alone; ``arrays`` is None for a rulebook without scenarios.
    """

    account_id: str
    market: DayMarket
    contracts: ContractValues
    requirement: Requirement
    arrays: RiskArrays | None
    is_conservative: bool


def margin_account(
    feeds: Frames,
    valued: Frames,
    *,
    quarantine: pd.DataFrame,
    account_id: str,
    rulebook_id: str,
    cutoff_at: datetime,
    business_date: date,
) -> MarginedAccount:
    """Compute the requirement of one account under one rulebook, to the same digit as :func:`margin` does.

    Arguments as for :func:`margin`; ``feeds`` may hold the positions and trades of this account only, and ``valued``
    the instruments in them.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, PRICE_UNAVAILABLE or FIGURE_NOT_FINITE.
    """
    market, index = market_and_index(feeds, quarantine=quarantine, cutoff_at=cutoff_at, business_date=business_date)
    held = feeds["collateral_balances"]
    held = held.loc[held["account_id"] == account_id, ["account_id", "asset", "quantity"]]
    day = _day(
        feeds,
        valued,
        quarantine=quarantine,
        account_ids=[account_id],
        market=market,
        index=index,
        collateral=held,
        cutoff_at=cutoff_at,
    )
    result, arrays = _today(rulebook_in_force(rulebook_id, business_date=business_date), day=day, valued=valued)
    return MarginedAccount(
        account_id=account_id,
        market=market,
        contracts=day.contracts,
        requirement=result,
        arrays=arrays,
        is_conservative=bool(day.is_conservative[0]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Day:
    """Everything about the accounts of one part that does not depend on the rulebook.

    ``today``, ``before``: what methodologies read of the market at the cut-off and one day earlier.
    """

    account_ids: Sequence[str]
    market: DayMarket
    contracts: ContractValues
    positions: Positions
    settlement: Settlement
    is_conservative: BoolArray
    today: MarginedMarket
    before: MarginedMarket


Results = Mapping[str, tuple[Rulebook, Requirement, RiskArrays | None]]


def _day(
    feeds: Frames,
    valued: Frames,
    *,
    quarantine: pd.DataFrame,
    account_ids: Sequence[str],
    market: DayMarket,
    index: pd.DataFrame,
    collateral: pd.DataFrame,
    cutoff_at: datetime,
) -> _Day:
    """Join positions, published values and the day's settlement of some accounts."""
    values = _valuations_from_frame(valued["valuations"], market=market)
    positions = positions_from_frames(
        feeds["positions"],
        feeds["trades"],
        unknown=_named(refused_rows(quarantine, feed="positions"), ("account_id", "instrument_id")),
        account_ids=account_ids,
        instruments=market.instruments,
    )
    refuse_oversized(
        positions, notional_usd=values.notional_usd, instruments=market.instruments, account_ids=account_ids
    )
    return _Day(
        account_ids=account_ids,
        market=market,
        contracts=values,
        positions=positions,
        settlement=settle(positions, market=market, notional_usd=values.notional_usd),
        is_conservative=_is_conservative(
            account_ids, quarantine=quarantine, positions=positions, market=market, collateral=collateral, index=index
        ),
        today=_margined_market(
            market.instruments, market.levels, values=values, valued_at=cutoff_at, closes=feeds["price_history"]
        ),
        before=_margined_market(
            market.previous_instruments,
            market.previous_levels,
            values=value_contracts(market.previous_instruments, market.previous_levels),
            valued_at=cutoff_at - ONE_DAY,
            closes=feeds["price_history"],
        ),
    )


def _margined_market(
    instruments: Instruments,
    levels: MarketLevels,
    *,
    values: ContractValues,
    valued_at: datetime,
    closes: pd.DataFrame,
) -> MarginedMarket:
    """What methodologies read of a market; the close of a day comes at its end, and so after the valuation of it."""
    is_known = closes["price_date"] < valued_at.date()
    return MarginedMarket(
        instruments=instruments,
        levels=levels,
        contract_values=values,
        valued_at=np.datetime64(valued_at, "us"),
        closes=closes.loc[is_known, ["asset", "price_date", "close_price"]],
    )


def market_and_index(
    feeds: Frames, *, quarantine: pd.DataFrame, cutoff_at: datetime, business_date: date
) -> tuple[DayMarket, pd.DataFrame]:
    """Market of every instrument held or traded in the feeds, and its index with ``previous_index_price`` beside it.

    Raises:
        MarginError: PRICE_UNAVAILABLE when neither a price nor a fallback exists for an instrument.
    """
    policy = market_policy_in_force(business_date)
    asset_policies = asset_price_policies_in_force(business_date)
    index = index_prices(feeds["index_quotes"], cutoff_at=cutoff_at, policy=policy, asset_policies=asset_policies)
    used = pd.concat([feeds["positions"]["instrument_id"], feeds["trades"]["instrument_id"]])
    instruments = feeds["instruments"]
    instruments = instruments[instruments["instrument_id"].isin(used)]
    prices = instrument_prices(
        instruments,
        listed=feeds["instruments"],
        market_prices=feeds["market_prices"],
        refused=refused_rows(quarantine, feed="market_prices"),
        index=index,
        cutoff_at=cutoff_at,
        policy=policy,
        asset_policies=asset_policies,
    )
    previous_index = previous_index_prices(
        feeds["instruments"],
        market_prices=feeds["market_prices"],
        price_history=feeds["price_history"],
        index=index,
        business_date=business_date,
    )
    market = day_market(instruments, prices=prices, index=index, previous_index=previous_index, valued_at=cutoff_at)
    before = previous_index.rename(columns={"index_price": "previous_index_price"})
    return market, index.merge(before, on="asset", validate="one_to_one")


def _risk_arrays(rulebook: Rulebook, instruments: Instruments, levels: MarketLevels) -> RiskArrays:
    return risk_arrays(instruments, levels, grids=rulebook.grids(tuple(instruments.underlyings)))


def _fallback_assets(index: pd.DataFrame) -> set[str]:
    return set(index.loc[index["is_fallback"], "asset"]) - {USD}


def _day_terms(feeds: Frames, index: pd.DataFrame, *, cutoff_at: datetime, business_date: date) -> DayTerms:
    """Collateral terms of the day: what the policy says at the day's prices, after the closes known by then.

    An asset on a fallback index counts at the lower of that and the previous index. The cut is part of the haircut, so
    that positions and collateral are still priced at one level.
    """
    kept = (index["previous_index_price"] / index["index_price"]).clip(upper=1.0)
    kept = kept.where(index["asset"].isin(_fallback_assets(index)), 1.0)
    age = (pd.Timestamp(cutoff_at) - index["observed_at"]).dt.total_seconds().clip(lower=0.0) / _SECONDS_PER_HOUR
    closes = feeds["price_history"]
    return day_terms(
        collateral_policy_in_force(business_date),
        prices={
            asset: DayPrice(price=price, age_hours=hours, kept_share=share)
            for asset, price, hours, share in zip(index["asset"], index["index_price"], age, kept, strict=True)
        },
        closes=closes.loc[closes["price_date"] < business_date, ["asset", "price_date", "close_price"]],
    )


def _own_groups(accounts: pd.DataFrame, members: pd.DataFrame) -> dict[str, str]:
    """Issuer group of the member behind each account; absent where the member states none."""
    groups = members.dropna(subset=["issuer_group"]).set_index("member_id")["issuer_group"]
    of_account = accounts["member_id"].map(groups)
    is_known = of_account.notna()
    return dict(zip(accounts.loc[is_known, "account_id"], of_account[is_known], strict=True))


def _collateral_terms(balances: pd.DataFrame, *, terms: DayTerms, index: pd.DataFrame) -> pd.DataFrame:
    """Terms of every asset held, tier by tier, read from the policy and not from its use: the second road to values."""
    floors = index.set_index("asset")["price_floor"]
    limits = terms.limits
    rows = []
    for asset in sorted(set(balances["asset"])):
        found = terms.of(asset)
        lower = Decimal(0)
        for number, tier in enumerate(found.tiers, start=1):
            rows.append(
                {
                    "asset": asset,
                    "tier": number,
                    "asset_currency": found.asset_currency,
                    "asset_class": found.asset_class,
                    "issuer": found.issuer,
                    "issuer_group": found.issuer_group,
                    "haircut_schedule": found.schedule,
                    "price_state": found.price_state,
                    "tier_unit": found.by,
                    "tier_from": lower,
                    "tier_upto": tier.upto,
                    "haircut": float(tier.haircut),
                    "fx_haircut": float(found.fx_haircut),
                    "issuer_share_limit": _share(limits.by_issuer, found.issuer),
                    "asset_class_share_limit": _share(limits.by_asset_class, found.asset_class),
                    "limit_reading": limits.reading,
                    "price_floor_usd": floors.get(asset, np.nan),
                }
            )
            lower = tier.upto or lower
    return pd.DataFrame(rows, columns=list(RISK["collateral_terms"].column_names))


def _share(limits: Mapping[str, Decimal], name: str | None) -> float:
    """Limit of an issuer or class, NaN where there is none."""
    share = None if name is None else limits.get(name)
    return np.nan if share is None else float(share)


def _valuations_frame(market: DayMarket) -> pd.DataFrame:
    instruments, levels = market.instruments, market.levels
    values = value_contracts(instruments, levels)
    return pd.DataFrame(
        {
            "instrument_id": instruments.instrument_id,
            "underlying": instruments.underlying,
            "settlement_currency": instruments.settlement_currency,
            "mark_price": levels.mark_price,
            "forward_price": levels.forward_price,
            "mark_iv": np.where(instruments.is_option, levels.volatility, np.nan),
            "underlying_price": levels.index_price,
            "contract_value_usd": values.value_usd,
            "delta": values.delta,
            "gamma": values.gamma,
            "vega_usd": values.vega_usd,
            "theta_usd": values.theta_usd,
            "price_source": market.price_source,
            "is_fallback_price": market.is_fallback_price,
        }
    )


def _valuations_from_frame(frame: pd.DataFrame, *, market: DayMarket) -> ContractValues:
    """Take the published figures; only notional and mark value, which are not published, are taken from the market."""
    at_market = value_contracts(market.instruments, market.levels)
    rows = frame.set_index("instrument_id").loc[list(market.instruments.instrument_id)]
    return ContractValues(
        value_usd=rows["contract_value_usd"].to_numpy(dtype=np.float64),
        mark_value_usd=at_market.mark_value_usd,
        notional_usd=at_market.notional_usd,
        delta=rows["delta"].to_numpy(dtype=np.float64),
        gamma=rows["gamma"].to_numpy(dtype=np.float64),
        vega_usd=rows["vega_usd"].to_numpy(dtype=np.float64),
        theta_usd=rows["theta_usd"].to_numpy(dtype=np.float64),
    )


def _figures(values: ContractValues, levels: MarketLevels) -> ContractFigures:
    return ContractFigures(
        value_usd=values.mark_value_usd,
        delta=values.delta,
        notional_usd=values.notional_usd,
        index_price=levels.index_price,
    )


def _named(refused: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Columns of refused rows in which all of them can be read."""
    return refused.reindex(columns=list(columns)).dropna()


def _is_conservative(
    account_ids: Sequence[str],
    *,
    quarantine: pd.DataFrame,
    positions: Positions,
    market: DayMarket,
    collateral: pd.DataFrame,
    index: pd.DataFrame,
) -> BoolArray:
    """Accounts with a row set aside, a position on a fallback price or collateral on a fallback index, shape (A,)."""
    refused = [_named(refused_rows(quarantine, feed=feed), ("account_id",))["account_id"] for feed in ACCOUNT_FEEDS]
    is_on_fallback = collateral["asset"].isin(_fallback_assets(index)) & (collateral["quantity"] != 0)
    named = pd.concat([*refused, collateral.loc[is_on_fallback, "account_id"]])
    is_conservative = np.asarray(pd.Index(list(account_ids), dtype=object).isin(named), dtype=bool)
    on_fallback = market.is_fallback_price[positions.instrument] & (positions.quantity_units != 0)
    is_conservative[positions.account[on_fallback]] = True
    return is_conservative


def _today(rulebook: Rulebook, *, day: _Day, valued: Frames) -> tuple[Requirement, RiskArrays | None]:
    market = day.market
    arrays = None
    if rulebook.is_scanned:
        published = valued["risk_arrays"]
        arrays = risk_arrays_from_frame(
            published[published["rulebook_id"] == rulebook.rulebook_id],
            instruments=market.instruments,
            grids=rulebook.grids(tuple(market.instruments.underlyings)),
        )
    book, rows = day.positions.book()
    result = requirement(
        rulebook,
        book=book,
        gain_units=day.settlement.total_units[rows],
        instruments=market.instruments,
        figures=_figures(day.contracts, market.levels),
        arrays=arrays,
        account_ids=day.account_ids,
        is_conservative=day.is_conservative,
        prepared=_prepared(rulebook, day.today),
    )
    return result, arrays


def _prepared(rulebook: Rulebook, market: MarginedMarket) -> Prepared | None:
    return None if rulebook.methodology is None else prepare(rulebook.methodology, market)


def _position_values(
    day: _Day, *, results: Results, shares: Mapping[str, tuple[Shares, ...]], own_rulebook: np.ndarray[Any, Any]
) -> pd.DataFrame:
    positions, market = day.positions, day.market
    instrument = positions.instrument
    quantity = floats_from_units(positions.quantity_units)
    is_option = market.instruments.is_option[instrument]
    names = market.instruments.instrument_id
    contract_value = to_units(day.contracts.value_usd, what="contract value", name=lambda row: str(names[row]))
    value_units = multiply_units(
        positions.quantity_units,
        contract_value[instrument],
        what="position value",
        name=lambda row: str(names[instrument[row]]),
    )
    settlement = day.settlement
    return pd.DataFrame(
        {
            "account_id": _labels(day.account_ids)[positions.account],
            "instrument_id": market.instruments.instrument_id[instrument],
            "quantity": decimals_from_units(positions.quantity_units),
            "previous_quantity": decimals_from_units(positions.previous_units),
            "notional_amount": _decimals(np.abs(quantity) * day.contracts.notional_usd[instrument], what="notional"),
            "delta_usd": _decimals(
                quantity * day.contracts.delta[instrument] * market.levels.index_price[instrument], what="delta"
            ),
            "net_option_value": decimals_from_units(value_units * is_option),
            "variation_margin": decimals_from_units(settlement.variation_units),
            "premium_amount": decimals_from_units(settlement.premium_units),
            "funding_amount": decimals_from_units(settlement.funding_units),
            "settlement_amount": decimals_from_units(settlement.total_units),
            "worst_scenario_pnl": decimals_from_units(
                _worst(day, results=results, shares=shares, own_rulebook=own_rulebook)
            ),
        }
    )


def _worst(
    day: _Day, *, results: Results, shares: Mapping[str, tuple[Shares, ...]], own_rulebook: np.ndarray[Any, Any]
) -> IntArray:
    """Outcome of each position in the worst case of its account's own rulebook, shape (P,).

    Under a methodology, which has its own kinds of worst case, minus the position's share of the initial margin.
    """
    worst = np.zeros(len(day.positions), dtype=np.int64)
    book, rows = day.positions.book()
    for rulebook_id in np.unique(own_rulebook.astype(str)):
        _, result, arrays = results[rulebook_id]
        is_own = own_rulebook[book.account] == rulebook_id
        outcome = (
            position_outcomes(result, arrays=arrays)
            if result.rulebook.methodology is None
            else -shared_initial(shares[rulebook_id][:-1], positions=len(book))  # without the conservative add-on
        )
        worst[rows[is_own]] = outcome[is_own]
    return worst


def _requirement_changes(day: _Day, *, results: Results, own_rulebook: np.ndarray[Any, Any]) -> pd.DataFrame:
    """Split the change of each requirement into market and trading.

    Three valuations under the account's own rulebook: the previous book in the previous market, one day earlier; the
    previous book in today's market; today's book in today's market. The conservative treatment of today is applied to
    all three, so that it is not taken for a movement. In the first no gain is unsettled.
    """
    market = day.market
    book, rows = day.positions.previous_book()
    carried = day.settlement.carried_units[rows]
    accounts = len(day.account_ids)
    before, moved, now = (np.zeros(accounts, dtype=np.int64) for _ in range(3))
    for rulebook_id in np.unique(own_rulebook.astype(str)):
        rulebook, today, arrays = results[rulebook_id]
        previous_arrays = (
            _risk_arrays(rulebook, market.previous_instruments, market.previous_levels) if rulebook.is_scanned else None
        )
        in_previous_market = requirement(
            rulebook,
            book=book,
            gain_units=np.zeros(len(book), dtype=np.int64),
            instruments=market.previous_instruments,
            figures=_figures(day.before.contract_values, market.previous_levels),
            arrays=previous_arrays,
            account_ids=day.account_ids,
            is_conservative=day.is_conservative,
            prepared=_prepared(rulebook, day.before),
        )
        in_todays_market = requirement(
            rulebook,
            book=book,
            gain_units=carried,
            instruments=market.instruments,
            figures=_figures(day.contracts, market.levels),
            arrays=arrays,
            account_ids=day.account_ids,
            is_conservative=day.is_conservative,
            prepared=today.prepared,
        )
        is_own = own_rulebook == rulebook_id
        before[is_own] = in_previous_market.initial_units[is_own]
        moved[is_own] = in_todays_market.initial_units[is_own]
        now[is_own] = today.initial_units[is_own]
    return pd.DataFrame(
        {
            "account_id": _labels(day.account_ids),
            "rulebook_id": own_rulebook,
            "previous_initial_margin": decimals_from_units(before),
            "market_effect": decimals_from_units(moved - before),
            "trading_effect": decimals_from_units(now - moved),
            "initial_margin": decimals_from_units(now),
            "currency": [results[rulebook_id][0].currency for rulebook_id in own_rulebook],
        }
    )


def _decimals(amounts: np.ndarray[Any, np.dtype[np.float64]], *, what: str) -> np.ndarray[Any, Any]:
    return decimals_from_units(to_units(amounts, what=what))


def _labels(account_ids: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array([*account_ids, None], dtype=object)[:-1]


def _contracted(tables: Frames) -> dict[str, pd.DataFrame]:
    """Give every table the columns of its contract, sorted by key; a table without rows keeps its types."""
    contracted = {}
    for name, frame in tables.items():
        table = RISK[name]
        rows = frame if len(frame) else empty_frame(table)
        contracted[name] = rows[list(table.column_names)].sort_values(list(table.key), ignore_index=True)
    return contracted
