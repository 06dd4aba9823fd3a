"""SPAN in the clearing day: contracts of every settlement on one underlying as one combined commodity in USD.

A contract of the clearing house becomes a SPAN contract of one USD of its underlying at the index. Delta is then USD of
underlying, and inverse, linear and quanto contracts of all sizes net; rates of spreads, of the short option minimum
and scan ranges are shares of the index, and stay what they are when prices move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray
from margin_tasks.pricing.instruments import Instruments, IntArray, TextArray
from margin_tasks.risk.amount_kernels import sum_units_fast, to_units_fast
from margin_tasks.risk.arrays import ScenarioModel, scenario_pnl_per_contract
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure, parameter_of
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology, no_name
from margin_tasks.rulebooks.ordering import groups_by
from margin_tasks.rulebooks.span import parameters as span
from margin_tasks.rulebooks.span.columns import SpanContracts, SpanParameters, SpanPortfolios, SpanPositions
from margin_tasks.rulebooks.span.requirement import CommodityRisk, span_requirement
from margin_tasks.scenarios.registry import scenario_definitions
from margin_tasks.scenarios.scenario_set import ScenarioSet
from margin_tasks.scenarios.span import ExtremeMove, ScanRanges, SpanPoints, span_moves, span_scenario_set
from margin_tasks.scenarios.volatility_scaling import SkewTwist, TenorScaling

SCAN_RISK = "scan_risk"
INTRA_COMMODITY_SPREAD = "intra_commodity_spread"
INTER_COMMODITY_CREDIT = "inter_commodity_credit"
SHORT_OPTION_MINIMUM = "short_option_minimum"

# Relative price step of the difference quotient of deltas, far below the width of any option's delta profile.
_DELTA_STEP = 1e-4
_STEPS = (_DELTA_STEP, -_DELTA_STEP)

Share = Annotated[float, Field(gt=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0, le=10.0)]


class CommodityRates(BaseModel):
    """Parameters of the combined commodity of one underlying.

    ``price_scan_range``: share of the price. ``volatility_scan_range``: share of the volatility of an option at the
    reference tenor. ``calendar_rate``: USD for a spread of one USD between expiries, before the spread's multiple.
    ``short_option_minimum``: USD for each USD of underlying sold in options.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    price_scan_range: Share
    volatility_scan_range: Share
    calendar_rate: NotNegative
    short_option_minimum: NotNegative


class ExpiryTier(BaseModel):
    """Expiries of ``from_days`` to ``up_to_days`` whole days from now, part of a day counting as one.

    What does not expire has 0 days. ``up_to_days`` None: without end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Annotated[int, Field(ge=1)]
    from_days: Annotated[int, Field(ge=0, le=99_999)]
    up_to_days: Annotated[int, Field(ge=0, le=99_999)] | None


class CalendarSpread(BaseModel):
    """A spread of one USD between two tiers, or inside one; it costs ``multiple`` x the underlying's calendar rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: int
    tiers: tuple[int, int]
    multiple: NotNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedSpan:
    """Parameters of the day, and for each contract of the clearing house its USD of underlying, shape (I,).

    ``point_name``: name of every point of every underlying, shape (U, S).
    """

    parameters: SpanParameters
    usd_per_contract: FloatArray
    point_name: TextArray


class SpanDayMethodology(Methodology):
    """SPAN with the scan ranges, spreads, credits and minimums of the house. Nets by underlying.

    SPAN reads risk arrays, not payoffs: whatever is listed has its own array, so nothing is outside.

    ``rules``: conventions, by identifier and version. ``points``: the scenarios, by identifier and version.
    ``commodities``: by underlying or ``default``. ``tenor_scaling``: volatility scan range of other tenors.
    ``look_ahead_days``: time that passes. ``inter_spreads``: legs count USD of delta.
    """

    family: Literal["span"]
    rules: span.SpanMethodology
    points: SpanPoints
    account_class: span.AccountClass
    price_risk_method: span.PriceRiskMethod
    short_option_method: Literal["gross", "max"]
    look_ahead_days: Annotated[float, Field(ge=0.0, le=30.0)]
    tenor_scaling: TenorScaling
    commodities: Annotated[Mapping[str, CommodityRates], Field(min_length=1)]
    expiry_tiers: Annotated[tuple[ExpiryTier, ...], Field(min_length=1)]
    calendar_spreads: tuple[CalendarSpread, ...]
    inter_spreads: tuple[span.InterSpread, ...]

    @field_validator("rules", mode="before")
    @classmethod
    def _rules_on_file(cls, stated: Any) -> Any:
        return span.definition(*stated.rsplit("-", 1)) if isinstance(stated, str) else stated

    @field_validator("points", mode="before")
    @classmethod
    def _points_on_file(cls, stated: Any) -> Any:
        if not isinstance(stated, str):
            return stated
        for each in scenario_definitions():
            if each.span is not None and f"{each.definition_id}-{each.version}" == stated:
                return each.span
        raise ValueError(f"points {stated!r} are not on file")

    @model_validator(mode="after")
    def _parameters_fit_together(self) -> Self:
        roundings = (self.rules.scan_rounding, self.rules.maintenance_rounding, self.rules.initial_rounding)
        if any(rounding.mode != "none" for rounding in roundings):
            raise ValueError(f"{self.rules.rulebook_id} rounds; components of the day add up to its totals unrounded")
        self.rules.ratio_of(self.account_class)
        reach = self._extreme.multiple
        steepest = float(self.tenor_scaling.tenor_scale(np.array([self.tenor_scaling.shortest_days]))[0])
        for underlying, rates in self.commodities.items():
            if rates.price_scan_range * reach >= 1.0:
                raise ValueError(f"{underlying}: the extreme move of {reach:g} x the price scan range leaves no price")
            if rates.volatility_scan_range * max(steepest, 1.0) >= 1.0:
                raise ValueError(f"{underlying}: the volatility scan range leaves no volatility at the shortest tenor")
            # The engine's own models refuse tiers that overlap and spreads between tiers that are not stated.
            self._commodity(underlying, rates)
        return self

    def prepare(self, market: MarginedMarket) -> PreparedSpan:
        """Risk arrays and composite deltas of one USD of every contract, and the parameters of every underlying."""
        instruments = market.instruments
        rates = [
            parameter_of(self.commodities, underlying=name, rulebook_id=self.family, block="commodities")
            for name in instruments.underlyings
        ]
        of_rates = {each: self._scenarios(each) for each in dict.fromkeys(rates)}
        scenarios = tuple(of_rates[each] for each in rates)
        usd = market.contract_values.notional_usd
        _refuse_without_size(instruments, usd)
        gain = self._pnl(market, scenarios)
        contracts = SpanContracts(
            contract_id=instruments.instrument_id,
            combined_commodity=instruments.underlying,
            period=np.array([f"{days:05d}" for days in _whole_days(instruments)], dtype=object),
            array=-gain / usd[:, None],
            composite_delta=self._composite_delta(market, rates) / usd,
            delta_scaling=np.ones(len(instruments)),
            is_option=instruments.is_option,
            is_call=instruments.is_call,
            option_value=np.where(instruments.is_option, market.contract_values.mark_value_usd, 0.0) / usd,
            price_scan_range=np.array([each.price_scan_range for each in rates])[instruments.underlying_index],
        )
        listed = set(instruments.underlyings.tolist())
        return PreparedSpan(
            parameters=SpanParameters(
                currency="USD",
                scenarios=span_scenario_set(
                    self.points,
                    price_scan_range=1.0,
                    volatility_scan_range=1.0,
                    look_ahead=self._look_ahead,
                    extreme=self._extreme,
                ),
                contracts=contracts,
                commodities=tuple(
                    self._commodity(name, each) for name, each in zip(instruments.underlyings, rates, strict=True)
                ),
                inter_spreads=tuple(
                    spread for spread in self.inter_spreads if {leg.combined_commodity for leg in spread.legs} <= listed
                ),
            ),
            usd_per_contract=usd,
            point_name=np.array([each.scenario_id for each in scenarios], dtype=object).reshape(
                len(scenarios), len(self.points.points)
            ),
        )

    def charges(self, exposure: Exposure, prepared: PreparedSpan) -> tuple[Charge, ...]:
        """Scan risk, spreads between expiries, credit between underlyings, and what the short option minimum adds.

        Maintenance is what SPAN computes, initial the class of account's multiple of it. Option value is not deducted:
        equity counts it.
        """
        book = exposure.book
        accounts, portfolio = np.unique(book.account, return_inverse=True)
        risk = span_requirement(
            SpanPositions(
                portfolio=portfolio,
                contract=book.instrument,
                quantity=exposure.quantity * prepared.usd_per_contract[book.instrument],
            ),
            portfolios=SpanPortfolios.of(accounts.astype(object), account_class=self.account_class),
            parameters=prepared.parameters,
            methodology=self.rules,
        ).commodities
        set_of = _sets_of(risk, exposure=exposure, portfolio=portfolio)
        name = no_name(exposure.sets)
        binds = risk.scan > 0.0
        name[set_of[binds]] = prepared.point_name[risk.commodity[binds], risk.active_scenario[binds] - 1]
        ratio = float(self.rules.ratio_of(self.account_class))
        initial, maintenance = (_parts(risk, multiple=each, set_of=set_of, sets=exposure.sets) for each in (ratio, 1.0))
        return tuple(
            Charge(
                component=component,
                initial_units=initial[component],
                maintenance_units=maintenance[component],
                scenario_name=name if component == SCAN_RISK else None,
            )
            for component in initial
        )

    @property
    def _extreme(self) -> ExtremeMove:
        return self.points.extreme(self.rules.extreme)

    @property
    def _look_ahead(self) -> float:
        return self.look_ahead_days / DAYS_PER_YEAR

    def _commodity(self, underlying: str, rates: CommodityRates) -> span.CombinedCommodity:
        return span.CombinedCommodity(
            code=underlying,
            currency="USD",
            price_risk_method=self.price_risk_method,
            intra_tiers=tuple(
                span.Tier(
                    tier=each.tier,
                    start=f"{each.from_days:05d}",
                    end="" if each.up_to_days is None else f"{each.up_to_days:05d}",
                )
                for each in self.expiry_tiers
            ),
            short_option_tiers=(span.ShortOptionTier(tier=0, rate=rates.short_option_minimum),),
            short_option_method=self.short_option_method,
            intra_spreads=tuple(
                span.IntraSpread(
                    priority=each.priority,
                    legs=tuple(
                        span.IntraLeg(side=side, ratio=1.0, tier=tier)
                        for side, tier in zip(("A", "B"), each.tiers, strict=True)
                    ),
                    rate=each.multiple * rates.calendar_rate,
                )
                for each in self.calendar_spreads
            ),
        )

    def _scenarios(self, rates: CommodityRates) -> ScenarioSet:
        """The points as moves relative to the price of every expiry."""
        moves = span_moves(
            self.points,
            ScanRanges(
                price=np.array([rates.price_scan_range]),
                volatility=np.array([rates.volatility_scan_range]),
                look_ahead=np.array([self._look_ahead]),
            ),
            extreme=self._extreme,
        )
        price, volatility = moves.price_shift[0], moves.volatility_move[0]
        return ScenarioSet.of(
            [
                f"span_{point.point:02d}_price{move:+.4f}_volatility{change:+.4f}"
                for point, move, change in zip(self.points.points, price, volatility, strict=True)
            ],
            paired=[point.paired - 1 for point in self.points.points],
            price_move=price,
            volatility_move=volatility,
            time_decay=moves.time_decay[0],
            weight=moves.weight[0],
        )

    def _composite_delta(self, market: MarginedMarket, rates: list[CommodityRates]) -> FloatArray:
        """USD for a relative move of one, the weighted mean over the composite points, shape (I,).

        Of the contract with its settlement currency, so that an inverse contract's delta is that of its USD outcome.
        """
        points = self.points.composite_delta
        share = np.array([float(point.price) for point in points])
        of_range = {
            price_range: ScenarioSet.of(
                [f"{side}{number}" for side in ("above", "below") for number in range(len(points))],
                price_move=np.concatenate([share * price_range + step for step in _STEPS]),
                time_decay=self._look_ahead,
            )
            for price_range in dict.fromkeys(each.price_scan_range for each in rates)
        }
        gain = self._pnl(market, tuple(of_range[each.price_scan_range] for each in rates))
        slope = (gain[:, : len(points)] - gain[:, len(points) :]) / (2.0 * _DELTA_STEP)
        delta = np.zeros(len(slope))
        for number, point in enumerate(points):
            delta += point.weight * slope[:, number]
        return delta

    def _pnl(self, market: MarginedMarket, scenarios: tuple[ScenarioSet, ...]) -> FloatArray:
        model = ScenarioModel(
            scenario_sets=scenarios,
            tenor_scalings=(self.tenor_scaling,) * len(scenarios),
            skew_twists=(SkewTwist(),) * len(scenarios),
        )
        return scenario_pnl_per_contract(market.instruments, market.levels, model=model).astype(np.float64, copy=False)


def _whole_days(instruments: Instruments) -> list[int]:
    days: list[int] = np.ceil(instruments.days_to_expiry).astype(np.int64).tolist()
    return days


def _refuse_without_size(instruments: Instruments, usd: FloatArray) -> None:
    is_bad = ~((usd > 0.0) & np.isfinite(usd))
    if is_bad.any():
        named = ", ".join(str(name) for name in instruments.instrument_id[is_bad][:5])
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"instruments {named}: no notional in USD that spreads and minimums could be counted in; check the prices",
        )


def _sets_of(risk: CommodityRisk, *, exposure: Exposure, portfolio: IntArray) -> IntArray:
    """Netting set of every row of the result: that of the positions in it."""
    width = len(exposure.instruments.underlyings)
    underlying = exposure.instruments.underlying_index[exposure.book.instrument]
    first = groups_by(portfolio, underlying).first
    key = portfolio[first] * width + underlying[first]
    set_of: IntArray = exposure.set_of[first[np.searchsorted(key, risk.portfolio * width + risk.commodity)]]
    return set_of


def _parts(risk: CommodityRisk, *, multiple: float, set_of: IntArray, sets: int) -> dict[str, IntArray]:
    """Components in units by netting set, which add up to the larger of risk and short option minimum."""

    def by_set(amounts: FloatArray, what: str) -> IntArray:
        return sum_units_fast(to_units_fast(amounts * multiple, what=what), group=set_of, groups=sets, what=what)

    scan = by_set(risk.scan, SCAN_RISK)
    intra = by_set(risk.intra, INTRA_COMMODITY_SPREAD)
    # A cap on scan risk does not lower the price risk that credits come from: they give back no more than there is.
    credit = np.minimum(by_set(risk.inter + risk.inter_exchange, INTER_COMMODITY_CREDIT), scan + intra)
    minimum = by_set(risk.short_option_minimum, SHORT_OPTION_MINIMUM)
    return {
        SCAN_RISK: scan,
        INTRA_COMMODITY_SPREAD: intra,
        INTER_COMMODITY_CREDIT: -credit,
        SHORT_OPTION_MINIMUM: np.maximum(minimum - (scan + intra - credit), 0),
    }
