"""Contracts, portfolios and positions as columns, and everything of one day that a SPAN requirement reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.rulebooks.span.parameters import CombinedCommodity, InterSpread, ScanningSpread
from margin_tasks.scenarios.scenario_set import ScenarioSet

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanContracts:
    """K contracts: arrays of shape (K,) unless said; amounts in the currency of the combined commodity.

    ``combined_commodity``, ``period``: codes. ``array``: (K, S), losses of one long contract positive, a long put is
    long. ``composite_delta``: of one long contract, a long put negative. ``delta_scaling``: factor of its delta in
    spreads. ``is_option``, ``is_call``. ``option_value``: price x value factor of one contract, 0 for what is not paid
    for at the trade (futures, options of futures style). ``price_scan_range``: currency for each contract, NaN where it
    is not stated.

    Raises:
        MarginError: INVALID_REQUEST when shapes differ; DUPLICATE_KEY or FIGURE_NOT_FINITE, naming the contracts.
    """

    contract_id: TextArray
    combined_commodity: TextArray
    period: TextArray
    array: FloatArray
    composite_delta: FloatArray
    delta_scaling: FloatArray
    is_option: BoolArray
    is_call: BoolArray
    option_value: FloatArray
    price_scan_range: FloatArray

    def __post_init__(self) -> None:
        size = len(self.contract_id)
        for name in self.__dataclass_fields__:
            if len(getattr(self, name)) != size:
                raise MarginError(FailureReason.INVALID_REQUEST, f"contracts: {name} needs one entry for each contract")
        if self.array.ndim != 2:
            raise MarginError(FailureReason.INVALID_REQUEST, "contracts: array needs shape (contracts, scenarios)")
        if len(set(self.contract_id.tolist())) != size:
            names, times = np.unique(self.contract_id.astype(str), return_counts=True)
            raise MarginError(
                FailureReason.DUPLICATE_KEY,
                f"contracts: {', '.join(names[times > 1][:5])} are stated twice; keep one",
            )
        is_finite = np.isfinite(self.array).all(axis=1)
        for column in (self.composite_delta, self.delta_scaling, self.option_value):
            is_finite &= np.isfinite(column)
        if not is_finite.all():
            raise MarginError(
                FailureReason.FIGURE_NOT_FINITE,
                f"contracts: {', '.join(str(name) for name in self.contract_id[~is_finite][:5])}: array, delta, delta "
                "scaling or option value is no finite number; correct the risk parameter file",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanPortfolios:
    """A portfolios: arrays of shape (A,).

    ``account_class``: decides the ratio of initial to maintenance. ``is_gross``: an omnibus account in which long and
    short positions do not net; each side is margined by itself, and no spread forms.
    """

    portfolio_id: TextArray
    account_class: TextArray
    is_gross: BoolArray

    @classmethod
    def of(
        cls,
        portfolio_id: Sequence[str] | TextArray,
        *,
        account_class: str | Sequence[str] = "member",
        is_gross: bool | Sequence[bool] = False,
    ) -> SpanPortfolios:
        """Portfolios that share what is stated once."""
        size = len(portfolio_id)
        return cls(
            portfolio_id=np.array(portfolio_id, dtype=object),
            account_class=np.broadcast_to(np.array(account_class, dtype=object), (size,)),
            is_gross=np.broadcast_to(np.array(is_gross, dtype=np.bool_), (size,)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanPositions:
    """P positions: ``portfolio`` and ``contract`` are rows, int64; ``quantity`` in contracts, long positive.

    Rows of the same portfolio and contract add up, long and short apart in a gross portfolio.
    """

    portfolio: IntArray
    contract: IntArray
    quantity: FloatArray

    def refuse_unusable(self, portfolios: SpanPortfolios, contracts: SpanContracts) -> None:
        """Refuse rows that point nowhere and quantities that are not finite.

        Raises:
            MarginError: INVALID_REQUEST, UNKNOWN_ACCOUNT, UNKNOWN_INSTRUMENT or FIGURE_NOT_FINITE, naming the rows.
        """
        if not len(self.portfolio) == len(self.contract) == len(self.quantity):
            raise MarginError(FailureReason.INVALID_REQUEST, "positions: columns of different length")
        for is_bad, reason, what in (
            (
                (self.portfolio < 0) | (self.portfolio >= len(portfolios.portfolio_id)),
                FailureReason.UNKNOWN_ACCOUNT,
                "portfolio is not among those given",
            ),
            (
                (self.contract < 0) | (self.contract >= len(contracts.contract_id)),
                FailureReason.UNKNOWN_INSTRUMENT,
                "contract is not among those of the day",
            ),
            (~np.isfinite(self.quantity), FailureReason.FIGURE_NOT_FINITE, "quantity is no finite number"),
        ):
            if is_bad.any():
                rows = ", ".join(str(row) for row in np.flatnonzero(is_bad)[:5])
                raise MarginError(reason, f"positions: rows {rows}: {what}; correct the positions")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanParameters:
    """Parameters of one day.

    ``scenarios``: numbers and pairs of the array's S points. ``conversion``: units of ``currency`` for one unit of
    each other currency. Derived: ``commodity_of``, ``period_of`` (rows of ``commodities`` and of ``periods`` for every
    contract, int64) and ``periods``, the period codes in ascending order.

    Raises:
        MarginError: INVALID_REQUEST or DUPLICATE_KEY, naming what is unknown, stated twice or contradicts.
    """

    currency: str
    scenarios: ScenarioSet
    contracts: SpanContracts
    commodities: Sequence[CombinedCommodity]
    inter_spreads: Sequence[InterSpread] = ()
    scanning_spreads: Sequence[ScanningSpread] = ()
    conversion: Mapping[str, float] = field(default_factory=dict)
    commodity_of: IntArray = field(init=False, repr=False)
    period_of: IntArray = field(init=False, repr=False)
    periods: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        codes = [commodity.code for commodity in self.commodities]
        if len(set(codes)) != len(codes):
            raise MarginError(FailureReason.DUPLICATE_KEY, "combined commodities: a code is stated twice; keep one")
        if self.contracts.array.shape[1] != len(self.scenarios):
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"contracts: arrays of {self.contracts.array.shape[1]} values for {len(self.scenarios)} scenarios",
            )
        self._refuse_unknown(set(self.contracts.combined_commodity.tolist()), "contracts")
        row_of_period, periods = pd.factorize(pd.Index(self.contracts.period, dtype=object), sort=True)
        for name, derived in (
            ("commodity_of", pd.Index(codes, dtype=object).get_indexer(pd.Index(self.contracts.combined_commodity))),
            ("period_of", row_of_period),
        ):
            object.__setattr__(self, name, derived.astype(np.int64))
        object.__setattr__(self, "periods", tuple(periods))
        by_code = self.by_code
        for spread in self.inter_spreads:
            self._refuse_unknown({leg.combined_commodity for leg in spread.legs}, f"spread {spread.priority}")
            for leg in spread.legs:
                tiers = {tier.tier for tier in by_code[leg.combined_commodity].inter_tiers} or {0}
                if leg.tier not in tiers:
                    raise MarginError(
                        FailureReason.INVALID_REQUEST,
                        f"spread {spread.priority}: {leg.combined_commodity} has no inter-commodity tier {leg.tier}",
                    )
        for merged in self.scanning_spreads:
            names = {merged.target, *(leg.combined_commodity for leg in merged.legs)}
            self._refuse_unknown(names, f"scanning-based spread {merged.priority}")
            for name in sorted(names):
                if len(by_code[name].scan_tiers) > 1 or by_code[name].inter_tiers:
                    raise MarginError(
                        FailureReason.INVALID_REQUEST,
                        f"scanning-based spread {merged.priority}: {name} has tiers; arrays of tiers cannot be merged",
                    )
        for code, rate in self.conversion.items():
            if not (np.isfinite(rate) and rate > 0.0):
                raise MarginError(FailureReason.INVALID_REQUEST, f"conversion of {code}: {rate} is no positive rate")
        lacking = sorted({each.currency for each in self.commodities} - {self.currency, *self.conversion})
        if lacking:
            raise MarginError(
                FailureReason.INVALID_REQUEST, f"no conversion of {', '.join(lacking)} to {self.currency}; state one"
            )

    @property
    def by_code(self) -> Mapping[str, CombinedCommodity]:
        """Combined commodities by code."""
        return {commodity.code: commodity for commodity in self.commodities}

    @property
    def row_of(self) -> dict[str, int]:
        """Row of each combined commodity by code."""
        return {commodity.code: row for row, commodity in enumerate(self.commodities)}

    @property
    def rate_to_currency(self) -> FloatArray:
        """Units of ``currency`` for one unit of each combined commodity's, shape (C,)."""
        rates = {**self.conversion, self.currency: 1.0}
        return np.array([rates[commodity.currency] for commodity in self.commodities], dtype=np.float64)

    def _refuse_unknown(self, names: set[str], where: str) -> None:
        unknown = sorted(names - set(self.by_code))
        if unknown:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"{where}: combined commodities {', '.join(unknown[:5])} are not stated; add their parameters",
            )


def sum_by(row: IntArray, amounts: ArrayLike, *, size: int) -> FloatArray:
    """Sum of the amounts of each row, shape (size,), in the order in which they stand."""
    weights = np.asarray(amounts, dtype=np.float64)
    return np.bincount(row, weights=weights, minlength=size).astype(np.float64, copy=False)
