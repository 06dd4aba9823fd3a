"""Terms of the day: what the policy says about every asset, at the day's prices and after the closes known by then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from margin_tasks.collateral.amounts import exact, exact_arithmetic
from margin_tasks.collateral.policy import (
    CollateralPolicy,
    EligibleAsset,
    ShareLimits,
    StalePrice,
    Tier,
    TieredHaircut,
    TierUnit,
    VolatilityHaircut,
)
from margin_tasks.risk.estimators import historical_tail

PriceState = Literal["current", "stale", "too_old"]
Schedule = Literal["fixed", "tiered", "volatility", "none"]

# An estimated haircut is stated in hundredths of a percent, rounded up: more digits would only be noise.
_ESTIMATE_STEP = Decimal("0.0001")
# Digits of every other haircut, rounded up: as many as the lake keeps of an amount.
_HAIRCUT_STEP = Decimal("1E-8")
_ONE = Decimal(1)
_NO_ASSETS: Mapping[str, AssetTerms] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class DayPrice:
    """Price of an asset at the cut-off, in the policy's currency.

    ``age_hours``: since the newest observation behind it. ``kept_share``: what is left of it where a fallback price may
    be too high, 1 otherwise.
    """

    price: float
    age_hours: float = 0.0
    kept_share: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetTerms:
    """What holds for one asset today. ``tiers`` are haircuts in force, everything of the day included."""

    asset: str
    asset_currency: str
    asset_class: str | None
    issuer: str | None
    issuer_group: str | None
    schedule: Schedule
    by: TierUnit
    tiers: tuple[Tier, ...]
    fx_haircut: Decimal
    price_state: PriceState


@dataclass(frozen=True, kw_only=True, slots=True)
class DayTerms:
    """Terms of every eligible asset, and those of any other."""

    currency: str
    assets: Mapping[str, AssetTerms]
    ineligible_haircut: Decimal
    limits: ShareLimits

    def of(self, asset: str) -> AssetTerms:
        """Terms of an asset; one that the policy does not list has the haircut of what is not eligible."""
        found = self.assets.get(asset)
        return found or AssetTerms(
            asset=asset,
            asset_currency=self.currency,
            asset_class=None,
            issuer=None,
            issuer_group=None,
            schedule="none",
            by="value",
            tiers=(Tier(upto=None, haircut=self.ineligible_haircut),),
            fx_haircut=Decimal(0),
            price_state="current",
        )


def day_terms(
    policy: CollateralPolicy, *, prices: Mapping[str, DayPrice] | None = None, closes: pd.DataFrame | None = None
) -> DayTerms:
    """Work out every haircut of the policy for one day.

    A haircut is that of the schedule, plus the depeg charge, plus the extra haircut of a stale price, never above 1;
    of a price that may be too high only ``kept_share`` counts. Rounded up to eight decimals.

    Args:
        policy: version in force.
        prices: by asset; what is absent is current and at its peg.
        closes: ``asset, price_date, close_price`` known by then, for haircuts that follow volatility.

    Returns:
        Terms with numbers only.
    """
    known = {} if prices is None else prices
    return DayTerms(
        currency=policy.currency,
        assets={
            eligible.asset: _asset_terms(eligible, policy=policy, price=known.get(eligible.asset), closes=closes)
            for eligible in policy.eligible_assets
        },
        ineligible_haircut=policy.ineligible_haircut,
        limits=policy.limits or ShareLimits(reading="single_pass"),
    )


def volatility_haircut(schedule: VolatilityHaircut, *, closes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Decimal:
    """max(floor, expected shortfall of the liquidation period), before add-ons and cap; the cap without a history.

    Args:
        schedule: parameters.
        closes: daily closes, oldest first, positive, shape (T,).
    """
    recent = closes[-(schedule.lookback_days + 1) :]
    if len(recent) - 1 < schedule.minimum_moves:
        return schedule.cap
    losses = 1.0 - recent[1:] / recent[:-1]
    shortfall = float(historical_tail(losses, level=schedule.level).expected_shortfall)
    horizon = shortfall * float(np.sqrt(schedule.liquidation_days))
    # A sum may differ in its last bits between machines; the small allowance keeps the step the same everywhere.
    estimate = Decimal(repr(round(horizon, 10))).quantize(_ESTIMATE_STEP, ROUND_CEILING)
    return max(schedule.floor, estimate)


def _asset_terms(
    eligible: EligibleAsset, *, policy: CollateralPolicy, price: DayPrice | None, closes: pd.DataFrame | None
) -> AssetTerms:
    currency = eligible.currency or policy.currency
    schedule, by, tiers = _scheduled(eligible, closes=closes)
    stale = eligible.stale_price or policy.stale_price
    state = _price_state(price, stale=stale)
    added = _depeg_charge(eligible, price=price)
    if state == "stale" and stale is not None:
        added += stale.extra_haircut
    kept = _ONE if price is None else exact(price.kept_share)
    with exact_arithmetic():
        in_force = tuple(
            Tier(
                upto=tier.upto,
                haircut=_ONE
                if state == "too_old"
                else (_ONE - (_ONE - min(_ONE, tier.haircut + added)) * kept).quantize(_HAIRCUT_STEP, ROUND_CEILING),
            )
            for tier in tiers
        )
    return AssetTerms(
        asset=eligible.asset,
        asset_currency=currency,
        asset_class=eligible.asset_class,
        issuer=eligible.issuer,
        issuer_group=eligible.issuer_group,
        schedule=schedule,
        by=by,
        tiers=in_force,
        fx_haircut=Decimal(0) if currency == policy.currency else policy.fx_haircuts[currency],
        price_state=state,
    )


def _scheduled(eligible: EligibleAsset, *, closes: pd.DataFrame | None) -> tuple[Schedule, TierUnit, tuple[Tier, ...]]:
    haircut = eligible.haircut
    if isinstance(haircut, TieredHaircut):
        return "tiered", haircut.by, haircut.tiers
    if isinstance(haircut, VolatilityHaircut):
        history = np.zeros(0)
        if closes is not None:
            of_asset = closes[closes["asset"] == (haircut.history_asset or eligible.asset)]
            history = of_asset.sort_values("price_date", kind="stable")["close_price"].to_numpy(dtype=np.float64)
        base = volatility_haircut(haircut, closes=history) + haircut.wrong_way
        tiers = tuple(Tier(upto=tier.upto, haircut=min(haircut.cap, base + tier.haircut)) for tier in haircut.liquidity)
        return "volatility", haircut.by, tiers
    return "fixed", "value", (Tier(upto=None, haircut=haircut),)


def _price_state(price: DayPrice | None, *, stale: StalePrice | None) -> PriceState:
    if price is None or stale is None or price.age_hours <= stale.after_hours:
        return "current"
    return "stale" if price.age_hours <= stale.worthless_after_hours else "too_old"


def _depeg_charge(eligible: EligibleAsset, *, price: DayPrice | None) -> Decimal:
    if eligible.depeg is None or price is None:
        return Decimal(0)
    depeg = eligible.depeg
    with exact_arithmetic():
        return max(Decimal(0), depeg.factor * (depeg.threshold - exact(price.price) / depeg.peg))
