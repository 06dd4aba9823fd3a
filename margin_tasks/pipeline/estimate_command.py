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
from margin_tasks.calibration.estimates.history import Finding, Outcome, gravest
from margin_tasks.calibration.estimates.moves import LEAST_STRESSED, MoveEstimate
from margin_tasks.calibration.estimates.offsets import offsets
from margin_tasks.calibration.estimates.option_chains import forwards_of, surfaces_of
from margin_tasks.calibration.estimates.order_books import liquidity_estimate
from margin_tasks.calibration.estimates.surfaces import read_surfaces, skew_twists, volatility_scan_range
from margin_tasks.calibration.estimates.volatility import stressed_window_ends
from margin_tasks.calibration.policy import CalibrationPolicy, calibration_policy_in_force
from margin_tasks.collateral.policy import CollateralPolicy, collateral_policy_in_force
from margin_tasks.collateral.terms import day_terms
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.backtest_command import EMBEDDED_CLOSES
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.rulebooks.blocks import CalendarCharge
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.house_es.charges import liquidity_factor
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.registry import rulebooks_in_force
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.rulebooks.span.methodology import SpanDayMethodology
from margin_tasks.sources.history import History, read_history

T = TypeVar("T")

_HAIRCUTS = {
    "fixed": "haircut, fixed",
    "tiered": "haircut, first tier",
    "volatility": "haircut, follows volatility",
}

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
        """Whether the value in force asks for less than the history does; no without an estimate from it."""
        if self.in_force is None or self.asked is None or self.estimate is None:
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
        *_volatility(known, policy, values, day),
        *_basis(known, policy, values, day),
        *_offsets(known, policy, values, day),
        *_haircuts(known, policy, values, day),
        *_liquidity(known, policy, values, day),
        *_funding(known, policy, day),
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

    def volatility(self, underlying: str) -> tuple[float, float]:
        """Relative moves up and down where tenors are not scaled."""
        stated = self._of(self.portfolio.scenarios, underlying).volatility
        return stated.up, stated.down

    def tenor_scale(self, underlying: str, tenor_days: float) -> float:
        stated = self._of(self.portfolio.scenarios, underlying).volatility
        return float(stated.tenor_scaling.tenor_scale(np.array([tenor_days]))[0])

    def calendar_rate(self, underlying: str) -> float:
        [charge] = [block for block in self.portfolio.blocks if isinstance(block, CalendarCharge)]
        return float(self._of(charge.rate, underlying))

    def basis_rate(self, underlying: str) -> float:
        return float(self._of(self.house.basis_rate, underlying))

    def half_spread(self, underlying: str) -> float:
        return float(self._of(self.house.trading, underlying).half_spread)

    def closing(self, underlying: str, size_usd: float) -> tuple[float, float]:
        """What house_es charges for closing a size: a share of it, and a share of its market risk alone."""
        trading = self._of(self.house.trading, underlying)
        liquidity = self.house.rules.liquidity
        volume_share = (
            size_usd / trading.daily_volume_usd if trading.daily_volume_usd > 0.0 else liquidity.volume_shares[-1]
        )
        return float(trading.half_spread), float(liquidity_factor(liquidity, np.array([volume_share]))[0])

    def offset(self, first: str, second: str) -> float:
        rates = [
            float(spread.rate)
            for spread in self.span.inter_spreads
            if {leg.combined_commodity for leg in spread.legs} == {first, second}
        ]
        return max(rates, default=0.0)

    def haircut(self, asset: str, closes: Mapping[str, pd.Series[float]]) -> tuple[float, str] | None:
        """Haircut of the smallest holding after these closes by asset, and its schedule; None for what is not taken."""
        if all(each.asset != asset for each in self.collateral.eligible_assets):
            return None
        rows = pd.concat(
            [
                pd.DataFrame({"asset": name, "price_date": series.index, "close_price": series.to_numpy()})
                for name, series in closes.items()
            ],
            ignore_index=True,
        )
        terms = day_terms(self.collateral, closes=rows).of(asset)
        return float(terms.tiers[0].haircut), terms.schedule

    def _of(self, parameters: Mapping[str, T], underlying: str) -> T:
        return parameter_of(parameters, underlying=underlying, rulebook_id="in force", block="estimates")


def _old(last: pd.Timestamp | None, day: date, policy: CalibrationPolicy) -> tuple[Finding, ...]:
    """A finding where the last of a history lies too far back to say anything about a day."""
    is_old = last is not None and (day - last.date()).days > policy.history.oldest_days
    return (Finding(outcome=Outcome.OLD_HISTORY),) if is_old else ()


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


def _volatility(known: History, policy: CalibrationPolicy, values: _InForce, day: date) -> Iterator[EstimateRow]:
    if known.chains is None or known.chains.empty:
        return
    surfaces = surfaces_of(known.chains)
    for underlying, rows in surfaces.groupby("underlying", sort=True):
        name = str(underlying)
        parameter = known.parameters.get(name, name)
        regime = policy.of(parameter).volatility
        if regime is None:
            continue
        read = read_surfaces(rows, regime=regime)
        found = volatility_scan_range(read, regime=regime, bootstrap=policy.bootstrap)
        scale = regime.scaling.tenor_scale(np.array(regime.tenors_days))
        old = _old(pd.Timestamp(rows["surface_date"].max()), day, policy)
        outcome = str(gravest((*old, *found.findings)))
        is_estimated = found.is_estimated and not old
        risen, fallen = values.volatility(parameter)
        sides = (
            ("up", found.up, regime.up_without_estimate, found.up_interval, found.up_by_pillar, risen),
            ("down", found.down, regime.down_without_estimate, found.down_interval, found.down_by_pillar, fallen),
        )  # fmt: skip
        for side, value, without, interval, by_pillar, in_force in sides:
            # Surfaces of long ago are no reason for less than what stands without any.
            asked = value if is_estimated else max(value, without)
            yield EstimateRow(
                section=VOLATILITY, product=name, parameter=f"{side}, before tenor scaling", in_force=in_force,
                estimate=value if is_estimated else None, lower=interval[0] if is_estimated else None,
                upper=interval[1] if is_estimated else None, asked=asked, outcome=outcome,
                remark=f"{len(read.days)} days, largest of all tenors and strikes",
            )  # fmt: skip
            for tenor, of_tenor, factor in zip(regime.tenors_days, by_pillar, scale, strict=True):
                is_read = is_estimated and np.isfinite(of_tenor).any()
                largest = float(np.nanmax(of_tenor)) if is_read else None
                yield EstimateRow(
                    section=VOLATILITY, product=name, parameter=f"{side}, {tenor:g} days",
                    in_force=in_force * values.tenor_scale(parameter, tenor), estimate=largest, lower=None, upper=None,
                    asked=asked * float(factor) if largest is None else largest, outcome=outcome,
                    remark=f"largest of {np.isfinite(of_tenor).sum()} strikes",
                )  # fmt: skip
        twists = skew_twists(read, regime=regime, low=regime.moneyness[0], high=regime.moneyness[-1])
        for tenor, twist in zip(regime.tenors_days, twists, strict=True):
            yield EstimateRow(
                section=SKEW, product=name, parameter=f"twist, {tenor:g} days", in_force=None, estimate=float(twist),
                lower=None, upper=None, asked=None, outcome=outcome,
                remark=f"volatility at {regime.moneyness[-1]:g} less that at {regime.moneyness[0]:g} of the forward",
            )  # fmt: skip


def _basis(known: History, policy: CalibrationPolicy, values: _InForce, day: date) -> Iterator[EstimateRow]:
    parts: dict[str, pd.DataFrame] = {}
    if known.chains is not None and len(known.chains):
        parts |= {str(name): rows for name, rows in forwards_of(known.chains).groupby("underlying")}
    if known.futures is not None and len(known.futures):
        quotes = known.futures.rename(columns={"product": "underlying", "quote_ts": "quote_date"})
        quotes["tenor_days"] = (quotes["expiry_ts"] - quotes["quote_date"]).dt.total_seconds() / 86_400.0
        of_day = quotes.groupby(["underlying", quotes["quote_date"].dt.normalize()])["quote_date"].transform("max")
        last_of_day = quotes[(quotes["quote_date"] == of_day) & (quotes["tenor_days"] > 0.0)]
        # Futures that are quoted themselves go before the forwards that options are priced with.
        parts |= {str(name): rows for name, rows in last_of_day.groupby("underlying")}
    for name, rows in sorted(parts.items()):
        parameter = known.parameters.get(name, name)
        read = read_basis(rows, regime=policy.basis)
        old = _old(read.days[-1] if len(read.days) else None, day, policy)
        singles = basis_ranges(read, regime=policy.basis, bootstrap=policy.bootstrap, findings=old)
        pairs = roll_ranges(read, regime=policy.basis, bootstrap=policy.bootstrap, findings=old)
        for tenor, found in zip(policy.basis.tenors_days, singles, strict=True):
            yield _row(BASIS, name, f"against the index, {tenor:g} days", found, in_force=values.basis_rate(parameter))
        for (near, far), found in pairs.items():
            yield _row(BASIS, name, f"{far:g} against {near:g} days", found, in_force=values.calendar_rate(parameter))


def _stressed(closes: pd.Series[float], window: int) -> BoolArray:
    """Sessions of the most volatile window of a market, known at the end of its history."""
    moves = np.diff(np.log(closes.to_numpy(dtype=np.float64)))
    stressed = np.zeros(len(closes), dtype=np.bool_)
    if len(moves):
        end = int(stressed_window_ends(moves, window=window)[-1]) + 1
        stressed[max(end - window, 0) + 1 : end + 1] = True
    return stressed


def _stressed_sessions(closes: pd.Series[float], market: pd.Series[float], *, window: int) -> BoolArray:
    """Sessions of a product in the most volatile window of the market; in its own where it is too young for that."""
    of_market = pd.Series(_stressed(market, window), index=market.index)
    stressed: BoolArray = of_market.reindex(closes.index, fill_value=False).to_numpy(dtype=np.bool_)
    return stressed if np.count_nonzero(stressed) >= LEAST_STRESSED else _stressed(closes, window)


def _offsets(known: History, policy: CalibrationPolicy, values: _InForce, day: date) -> Iterator[EstimateRow]:
    market = known.closes[policy.haircuts.market]
    stressed = pd.Series(_stressed(market, policy.default.price.stressed_moves), index=market.index)
    products = tuple(name for name, series in known.closes.items() if len(series))
    closes = pd.DataFrame({name: known.closes[name] for name in products}).sort_index()
    found = offsets(
        closes.to_numpy(dtype=np.float64), products=products, regime=policy.offsets, bootstrap=policy.bootstrap,
        is_stressed=stressed.reindex(closes.index, fill_value=False).to_numpy(dtype=np.bool_), policy=policy.history,
        old_products=[name for name in products if _old(known.closes[name].index[-1], day, policy)],
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


def _haircuts(known: History, policy: CalibrationPolicy, values: _InForce, day: date) -> Iterator[EstimateRow]:
    for product, closes in known.closes.items():
        asset = known.parameters.get(product, product)
        stated = None if closes.empty else values.haircut(asset, {**known.closes, asset: closes})
        if stated is None:
            continue
        in_force, schedule = stated
        regime = policy.haircut_of(asset)
        market = known.closes.get(regime.market, closes[:0])
        found = haircut(
            closes.to_numpy(dtype=np.float64), regime=regime, bootstrap=policy.bootstrap,
            market=market.reindex(closes.index).to_numpy(dtype=np.float64),
            is_stressed=_stressed_sessions(closes, market, window=policy.default.price.stressed_moves),
            in_force=in_force, policy=policy.history, findings=_old(closes.index[-1], day, policy),
        )  # fmt: skip
        row = _row(HAIRCUT, product, _HAIRCUTS[schedule], found.fall, in_force=in_force)
        wrong_way = f"; falls {found.wrong_way:.1%} on {regime.market}'s worst days"
        yield replace(
            row, asked=found.share,
            remark=f"{found.uncovered} of {found.periods} falls beyond the one in force"
            f"{'' if np.isnan(found.wrong_way) else wrong_way}",
        )  # fmt: skip


def _liquidity(known: History, policy: CalibrationPolicy, values: _InForce, day: date) -> Iterator[EstimateRow]:
    if known.order_books is None:
        return
    for product, levels in known.order_books.groupby("product", sort=True):
        name = str(product)
        parameter = known.parameters.get(name, name)
        found = liquidity_estimate(levels, regime=policy.liquidity)
        old = _old(pd.Timestamp(levels["taken_at"].max()), day, policy)
        outcome = str(gravest((*old, *found.findings)))
        half_spread = values.half_spread(parameter)
        of_books = f"{found.books} books"
        yield EstimateRow(
            section=LIQUIDITY, product=name, parameter="half spread", estimate=found.half_spread,
            in_force=half_spread, lower=None, upper=None, outcome=outcome, remark=of_books,
            # Books of long ago are no reason for less.
            asked=max(found.half_spread, half_spread) if old else found.half_spread,
        )  # fmt: skip
        for size, cost, held in zip(policy.liquidity.sizes_usd, found.cost, found.held_by, strict=True):
            share, of_margin = values.closing(parameter, size)
            remarks = [f"held by {held} of {of_books}"]
            if held < found.books:
                remarks.append("others at no less than all they hold")
            if of_margin > 0.0:
                remarks.append(f"in force with {of_margin:.0%} of its market risk besides")
            yield EstimateRow(
                section=LIQUIDITY, product=name, parameter=f"closing {size:,.0f} USD", in_force=share,
                lower=None, upper=None, estimate=float(cost), asked=None, outcome=outcome, remark=", ".join(remarks),
            )  # fmt: skip


def _funding(known: History, policy: CalibrationPolicy, day: date) -> Iterator[EstimateRow]:
    if known.funding is None:
        return
    for product, rows in known.funding.groupby("product", sort=True):
        found = funding_estimate(
            rows, regime=policy.funding, bootstrap=policy.bootstrap,
            findings=_old(pd.Timestamp(rows["paid_at"].max()), day, policy),
        )  # fmt: skip
        for side, estimate in (("longs", found.paid_by_longs), ("shorts", found.paid_by_shorts)):
            row = _row(FUNDING, str(product), f"paid by {side}", estimate, in_force=None)
            yield replace(row, remark=f"{row.remark}, mean print {found.mean_rate:.4%}")
