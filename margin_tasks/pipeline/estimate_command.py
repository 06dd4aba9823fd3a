"""``margin estimate``: what history says that every parameter should be, beside the value in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from margin_tasks.calibration.calibrate import estimate_parameters
from margin_tasks.calibration.estimates.basis import basis_ranges, read_basis, roll_ranges
from margin_tasks.calibration.estimates.funding import funding_estimate
from margin_tasks.calibration.estimates.haircuts import haircut
from margin_tasks.calibration.estimates.history import gravest
from margin_tasks.calibration.estimates.moves import MoveEstimate
from margin_tasks.calibration.estimates.offsets import offsets
from margin_tasks.calibration.estimates.option_chains import forwards_of, surfaces_of
from margin_tasks.calibration.estimates.order_books import liquidity_estimate
from margin_tasks.calibration.estimates.surfaces import read_surfaces, skew_twists, volatility_scan_range
from margin_tasks.calibration.estimates.volatility import stressed_window_ends
from margin_tasks.calibration.policy import CalibrationPolicy, calibration_policy_in_force
from margin_tasks.collateral.policy import CollateralPolicy, EligibleAsset, TieredHaircut, collateral_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.backtest_command import EMBEDDED_CLOSES
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.rulebooks.blocks import CalendarCharge
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.registry import rulebooks_in_force
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.rulebooks.span.methodology import SpanDayMethodology
from margin_tasks.sources.history import History, read_history

T = TypeVar("T")

PRICE, VOLATILITY, SKEW, BASIS, OFFSET, HAIRCUT, LIQUIDITY, FUNDING = (
    "price scan ranges",
    "volatility scan ranges",
    "skew",
    "basis and roll",
    "correlations and offsets",
    "haircuts",
    "liquidity",
    "funding",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateRow:
    """One parameter: shares, or points of volatility for skew; None where there is none.

    ``asked``: what the estimate comes to after floors, ceilings and fallbacks, and of price ranges after the tools
    against procyclicality. ``lower``, ``upper``: of ``estimate``, by bootstrap. ``is_most``: the value in force may not
    be above ``asked``, as for offsets, instead of below it.
    """

    section: str
    product: str
    parameter: str
    in_force: float | None
    estimate: float | None
    lower: float | None
    upper: float | None
    asked: float | None
    outcome: str
    remark: str = ""
    is_most: bool = False

    @property
    def is_short(self) -> bool:
        """Whether the value in force asks for less than the history does."""
        if self.in_force is None or self.asked is None:
            return False
        return self.in_force > self.asked if self.is_most else self.in_force < self.asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """Estimates by section, and what they are from."""

    as_of: date
    policy: str
    files: tuple[str, ...]
    rows: tuple[EstimateRow, ...]


def estimate_all(folder: Path | None = None, *, as_of: date | None = None) -> Estimates:
    """Estimate everything that a history allows.

    Args:
        folder: history beside the embedded closes, see docs/methodology/backtests.md.
        as_of: nothing later is looked at; the last close where silent.

    Raises:
        MarginError: INVALID_REQUEST for a day before the first close, and what the reading of the history refuses.
    """
    history = read_history(EMBEDDED_CLOSES, folder)
    last = max(series.index[-1] for series in history.closes.values()).date()
    day = last if as_of is None else as_of
    first = min(series.index[0] for series in history.closes.values()).date()
    if day < first:
        raise MarginError(FailureReason.INVALID_REQUEST, f"the history begins on {first}: nothing is known on {day}")
    known = _known(history, day)
    policy = calibration_policy_in_force(day)
    values = _InForce.of(day)
    rows = [
        *_price_ranges(known, policy, values, day),
        *_volatility(known, policy, values),
        *_basis(known, policy, values),
        *_offsets(known, policy, values),
        *_haircuts(known, policy, values),
        *_liquidity(known, policy, values),
        *_funding(known, policy),
    ]
    return Estimates(
        as_of=day, policy=f"{policy.id} {policy.version}", files=history.files, rows=tuple(map(_without_nan, rows))
    )


# --- what is known, and what is in force ------------------------------------------------------------------------------


def _known(history: History, day: date) -> History:
    """The history up to a day's end."""
    end = pd.Timestamp(day) + pd.Timedelta(days=1)

    def until(rows: pd.DataFrame | None, column: str) -> pd.DataFrame | None:
        return None if rows is None else rows[rows[column] < end]

    return replace(
        history,
        closes={name: series[series.index < end] for name, series in history.closes.items()},
        chains=until(history.chains, "quote_ts"),
        futures=until(history.futures, "quote_ts"),
        funding=until(history.funding, "paid_at"),
        order_books=until(history.order_books, "taken_at"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _InForce:
    """Values in force on a day; of an underlying that is not named, those of ``default``."""

    portfolio: Rulebook
    house: HouseEsMethodology
    span: SpanDayMethodology
    collateral: CollateralPolicy

    @classmethod
    def of(cls, day: date) -> _InForce:
        by_id = {rulebook.rulebook_id: rulebook for rulebook in rulebooks_in_force(day)}
        house, span = by_id["house_es"].methodology, by_id["span"].methodology
        if not isinstance(house, HouseEsMethodology) or not isinstance(span, SpanDayMethodology):
            raise MarginError(FailureReason.UNKNOWN_RULEBOOK, "house_es and span are not of their own families")
        return cls(portfolio=by_id["portfolio"], house=house, span=span, collateral=collateral_policy_in_force(day))

    def price_range(self, underlying: str) -> float:
        return self._of(self.portfolio.scenarios, underlying).price_range

    def volatility(self, underlying: str, tenor_days: float) -> tuple[float, float]:
        """Relative moves up and down at a tenor."""
        stated = self._of(self.portfolio.scenarios, underlying).volatility
        scale = float(stated.tenor_scaling.tenor_scale(np.array([tenor_days]))[0])
        return stated.up * scale, stated.down * scale

    def calendar_rate(self, underlying: str) -> float:
        [charge] = [block for block in self.portfolio.blocks if isinstance(block, CalendarCharge)]
        return float(self._of(charge.rate, underlying))

    def basis_rate(self, underlying: str) -> float:
        return float(self._of(self.house.basis_rate, underlying))

    def half_spread(self, underlying: str) -> float:
        return float(self._of(self.house.trading, underlying).half_spread)

    def offset(self, first: str, second: str) -> float:
        rates = [
            float(spread.rate)
            for spread in self.span.inter_spreads
            if {leg.combined_commodity for leg in spread.legs} == {first, second}
        ]
        return max(rates, default=0.0)

    def collateral_of(self, asset: str) -> EligibleAsset | None:
        return next((each for each in self.collateral.eligible_assets if each.asset == asset), None)

    def _of(self, parameters: Mapping[str, T], underlying: str) -> T:
        return parameter_of(parameters, underlying=underlying, rulebook_id="in force", block="estimates")


def _row(section: str, product: str, parameter: str, found: MoveEstimate, *, in_force: float | None) -> EstimateRow:
    return EstimateRow(
        section=section, product=product, parameter=parameter, in_force=in_force, estimate=found.estimate,
        lower=found.interval[0], upper=found.interval[1], asked=found.value, outcome=str(found.outcome),
        remark=f"{found.moves} moves",
    )  # fmt: skip


def _without_nan(row: EstimateRow) -> EstimateRow:
    numbers = ("in_force", "estimate", "lower", "upper", "asked")
    absent = {name: None for name in numbers if (value := getattr(row, name)) is not None and not np.isfinite(value)}
    return replace(row, **absent)  # type: ignore[arg-type]


# --- sections ---------------------------------------------------------------------------------------------------------


def _price_ranges(known: History, policy: CalibrationPolicy, values: _InForce, day: date) -> Iterator[EstimateRow]:
    closes = pd.DataFrame({name: series for name, series in known.closes.items() if len(series)}).sort_index()
    parameters = {product: known.parameters.get(product, product) for product in map(str, closes)}
    estimated_as = policy.model_copy(
        update={"underlyings": {product: policy.of(parameter) for product, parameter in parameters.items()}}
    )
    in_force = {
        f"{policy.rulebook}.{product}.price_range": values.price_range(parameter)
        for product, parameter in parameters.items()
    }
    for product in parameters:
        # A product that closes on weekends has no price on them: its rows are its own sessions.
        [found] = estimate_parameters(
            closes[[product]].dropna(), policy=estimated_as, as_of=day, in_force=in_force, states={}
        )
        yield EstimateRow(
            section=PRICE, product=product, parameter="price range", in_force=found.value_in_force,
            estimate=found.model_value if found.estimator else np.nan, lower=found.lower, upper=found.upper,
            asked=found.proposed_value, outcome=str(found.outcome),
            remark=", ".join([found.estimator or "no estimate", *_tail(found.tail_index, found.tail_index_error)]),
        )  # fmt: skip


def _tail(index: float, error: float) -> list[str]:
    return [f"tail index {index:.1f} +- {error:.1f}"] if np.isfinite(index) else []


def _volatility(known: History, policy: CalibrationPolicy, values: _InForce) -> Iterator[EstimateRow]:
    if known.chains is None or known.chains.empty:
        return
    surfaces = surfaces_of(known.chains)
    for underlying, rows in surfaces.groupby("underlying", sort=True):
        name = str(underlying)
        regime = policy.of(known.parameters.get(name, name)).volatility
        if regime is None:
            continue
        read = read_surfaces(rows, regime=regime)
        found = volatility_scan_range(read, regime=regime, bootstrap=policy.bootstrap)
        scale = regime.scaling.tenor_scale(np.array(regime.tenors_days))
        for place, tenor in enumerate(regime.tenors_days):
            sides = zip(
                ("up", "down"), (found.up_by_pillar, found.down_by_pillar), values.volatility(name, tenor), strict=True
            )
            for side, by_pillar, in_force in sides:
                is_read = np.isfinite(by_pillar[place])
                largest = float(np.nanmax(by_pillar[place])) if is_read.any() else np.nan
                fallback = (found.up if side == "up" else found.down) * float(scale[place])
                yield EstimateRow(
                    section=VOLATILITY, product=name, parameter=f"{side}, {tenor:g} days", in_force=in_force,
                    estimate=largest, lower=None, upper=None, asked=largest if is_read.any() else fallback,
                    outcome=str(gravest(found.findings)),
                    remark=f"{len(read.days)} days, largest of {is_read.sum()} strikes",
                )  # fmt: skip
        twists = skew_twists(read, regime=regime, low=regime.moneyness[0], high=regime.moneyness[-1])
        for tenor, twist in zip(regime.tenors_days, twists, strict=True):
            yield EstimateRow(
                section=SKEW, product=name, parameter=f"twist, {tenor:g} days", in_force=None, estimate=float(twist),
                lower=None, upper=None, asked=None, outcome=str(gravest(found.findings)),
                remark=f"volatility at {regime.moneyness[-1]:g} less that at {regime.moneyness[0]:g} of the forward",
            )  # fmt: skip


def _basis(known: History, policy: CalibrationPolicy, values: _InForce) -> Iterator[EstimateRow]:
    parts = []
    if known.chains is not None and len(known.chains):
        parts.append(forwards_of(known.chains))
    if known.futures is not None and len(known.futures):
        quotes = known.futures.rename(columns={"product": "underlying", "quote_ts": "quote_date"})
        quotes["tenor_days"] = (quotes["expiry_ts"] - quotes["quote_date"]).dt.total_seconds() / 86_400.0
        of_day = quotes.groupby(["underlying", quotes["quote_date"].dt.normalize()])["quote_date"].transform("max")
        parts.append(quotes[quotes["quote_date"] == of_day])
    if not parts:
        return
    # Futures that are quoted themselves go before the forwards that options are priced with.
    quotes = parts[-1]
    for underlying, rows in quotes.groupby("underlying", sort=True):
        name = str(underlying)
        read = read_basis(rows, regime=policy.basis)
        singles = basis_ranges(read, regime=policy.basis, bootstrap=policy.bootstrap)
        for tenor, found in zip(policy.basis.tenors_days, singles, strict=True):
            yield _row(BASIS, name, f"against the index, {tenor:g} days", found, in_force=values.basis_rate(name))
        for (near, far), found in roll_ranges(read, regime=policy.basis, bootstrap=policy.bootstrap).items():
            yield _row(BASIS, name, f"{far:g} against {near:g} days", found, in_force=values.calendar_rate(name))


def _stressed(closes: pd.Series[float], window: int) -> BoolArray:
    """Sessions of the most volatile window of a market, known at the end of its history."""
    moves = np.diff(np.log(closes.to_numpy(dtype=np.float64)))
    stressed = np.zeros(len(closes), dtype=np.bool_)
    if len(moves):
        end = int(stressed_window_ends(moves, window=window)[-1]) + 1
        stressed[max(end - window, 0) + 1 : end + 1] = True
    return stressed


def _offsets(known: History, policy: CalibrationPolicy, values: _InForce) -> Iterator[EstimateRow]:
    market = known.closes[policy.haircuts.market]
    stressed = pd.Series(_stressed(market, policy.default.price.stressed_moves), index=market.index)
    products = tuple(name for name, series in known.closes.items() if len(series))
    closes = pd.DataFrame({name: known.closes[name] for name in products}).sort_index()
    found = offsets(
        closes.to_numpy(dtype=np.float64), products=products, regime=policy.offsets, bootstrap=policy.bootstrap,
        is_stressed=stressed.reindex(closes.index, fill_value=False).to_numpy(dtype=np.bool_),
    )  # fmt: skip
    for pair in found:
        named = {known.parameters.get(name, name) for name in (pair.first, pair.second)}
        in_force = values.offset(*sorted(named)) if len(named) == 2 else 0.0
        lower, upper = pair.stressed_interval
        in_stress = f"in stress {pair.stressed_correlation:.2f} ({lower:.2f} to {upper:.2f})"
        stress = "no stressed period" if np.isnan(pair.stressed_correlation) else in_stress
        yield EstimateRow(
            section=OFFSET, product=f"{pair.first} / {pair.second}", parameter="correlation", in_force=None,
            estimate=pair.correlation, lower=pair.interval[0], upper=pair.interval[1], asked=None,
            outcome=str(gravest(pair.findings)), remark=f"{stress}, {pair.moves} moves",
        )  # fmt: skip
        if in_force or pair.rate:
            yield EstimateRow(
                section=OFFSET, product=f"{pair.first} / {pair.second}", parameter="offset rate", in_force=in_force,
                estimate=pair.rate, lower=None, upper=None, asked=pair.rate, is_most=True,
                outcome=str(gravest(pair.findings)),
                remark="" if np.isnan(pair.hedge_ratio) else f"{pair.hedge_ratio:.2f} short against 1 long",
            )  # fmt: skip


def _haircuts(known: History, policy: CalibrationPolicy, values: _InForce) -> Iterator[EstimateRow]:
    regime = policy.haircuts
    market = known.closes[regime.market]
    stressed = pd.Series(_stressed(market, policy.default.price.stressed_moves), index=market.index)
    for product, closes in known.closes.items():
        terms = values.collateral_of(known.parameters.get(product, product))
        if terms is None or closes.empty:
            continue
        in_force, stated = _stated_haircut(terms)
        found = haircut(
            closes.to_numpy(dtype=np.float64), regime=regime, bootstrap=policy.bootstrap,
            market=market.reindex(closes.index).to_numpy(dtype=np.float64),
            is_stressed=stressed.reindex(closes.index, fill_value=False).to_numpy(dtype=np.bool_),
            in_force=in_force,
        )  # fmt: skip
        row = _row(HAIRCUT, product, f"haircut, {stated}", found.fall, in_force=in_force)
        yield replace(
            row, asked=found.share,
            remark=f"{found.uncovered} of {found.periods} falls beyond the one in force; "
            f"falls {found.wrong_way:.1%} on {regime.market}'s worst days",
        )  # fmt: skip


def _stated_haircut(terms: EligibleAsset) -> tuple[float, str]:
    """The least haircut that the policy may take, and what kind it is."""
    stated = terms.haircut
    if isinstance(stated, TieredHaircut):
        return float(stated.tiers[0].haircut), "first tier"
    return (float(stated.floor), "its floor") if hasattr(stated, "floor") else (float(stated), "fixed")


def _liquidity(known: History, policy: CalibrationPolicy, values: _InForce) -> Iterator[EstimateRow]:
    if known.order_books is None:
        return
    for product, levels in known.order_books.groupby("product", sort=True):
        name = str(product)
        found = liquidity_estimate(levels.assign(symbol=name), regime=policy.liquidity)
        outcome = str(gravest(found.findings))
        of_books = f"{found.books} books"
        yield EstimateRow(
            section=LIQUIDITY, product=name, parameter="half spread", estimate=found.half_spread,
            in_force=values.half_spread(known.parameters.get(name, name)), lower=None, upper=None,
            asked=found.half_spread, outcome=outcome, remark=of_books,
        )  # fmt: skip
        for size, cost, held in zip(policy.liquidity.sizes_usd, found.cost, found.held_by, strict=True):
            yield EstimateRow(
                section=LIQUIDITY, product=name, parameter=f"closing {size:,.0f} USD", in_force=None, lower=None,
                upper=None, estimate=float(cost), asked=None, outcome=outcome,
                remark=f"held by {held} of {of_books}" + (", others at the most" if held < found.books else ""),
            )  # fmt: skip


def _funding(known: History, policy: CalibrationPolicy) -> Iterator[EstimateRow]:
    if known.funding is None:
        return
    for product, rows in known.funding.groupby("product", sort=True):
        found = funding_estimate(rows, regime=policy.funding, bootstrap=policy.bootstrap)
        for side, estimate in (("longs", found.paid_by_longs), ("shorts", found.paid_by_shorts)):
            row = _row(FUNDING, str(product), f"paid by {side}", estimate, in_force=None)
            yield replace(row, remark=f"{row.remark}, mean print {found.mean_rate:.4%}")
