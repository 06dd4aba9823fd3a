"""Parameters of a day from a SPAN risk parameter file in XML."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.span.columns import SpanContracts, SpanParameters
from margin_tasks.rulebooks.span.parameters import (
    ChargeMethod,
    CombinedCommodity,
    DeliveryCharge,
    InterLeg,
    InterSpread,
    IntraLeg,
    IntraSpread,
    PriceRiskMethod,
    ScanningLeg,
    ScanningSpread,
    ShortOptionTier,
    Tier,
)
from margin_tasks.scenarios.scenario_set import ScenarioSet
from margin_tasks.sources.span.spn import SpnFile

_OPTIONS = ("OOP", "OOF", "OOE")
# Valued like a future: option value is settled every day.
_FUTURES_STYLE = "FUT"
_FIRST_CLASS = 1


def parameters_from_spn(file: SpnFile, *, currency: str, requirement_class: int = _FIRST_CLASS) -> SpanParameters:
    """Everything that a requirement reads, for one class of requirement.

    Arrays and rates are those of the class that the adjustment rates of ``requirement_class`` refer to, usually itself.
    Contracts of families that belong to no combined commodity are left out: they cannot be margined.

    Args:
        file: the file.
        currency: currency of totals.
        requirement_class: ``r`` of the adjustment rates.

    Raises:
        MarginError: INVALID_REQUEST, naming line or element, when the file states a method or a spread that is not
            supported, or no points or arrays of the class.
    """
    adjustments = file.adjustments[file.adjustments["requirement_class"] == requirement_class]
    bases = sorted(set(adjustments["base_class"])) or [requirement_class]
    if len(bases) > 1:
        raise _unsupported("adjRate", f"several base classes of requirement class {requirement_class}")
    base = int(bases[0])
    factors = {row["combined_commodity"]: row["factor"] for row in _records(adjustments)}
    return SpanParameters(
        currency=currency,
        scenarios=_scenarios(file, base),
        contracts=_contracts(file, base),
        commodities=[_commodity(row, file, base, factors=factors) for row in _records(file.combined_commodities)],
        inter_spreads=tuple(_inter_spreads(file, base)),
        scanning_spreads=tuple(_scanning_spreads(file, base)),
        conversion={
            row["from_currency"]: row["factor"]
            for row in _records(file.conversions)
            if row["to_currency"] == currency and row["from_currency"] != currency
        },
    )


def contract_name(row: Mapping[str, Any]) -> str:
    """Identifier of a contract: family, family type and period, for an option also right and strike."""
    name = f"{row['family']}|{row['family_type']}|{row['period']}"
    return f"{name}|{row['right']}|{row['strike']:g}" if row["right"] else name


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _scenarios(file: SpnFile, requirement_class: int) -> ScenarioSet:
    points = file.points[
        (file.points["requirement_class"] == requirement_class) & (file.points["combined_commodity"] == "")
    ].sort_values("point")
    if points.empty:
        raise _unsupported("pointDef", f"no scenarios of requirement class {requirement_class}")
    return ScenarioSet.of(
        [f"span_{point:02d}" for point in points["point"]],
        paired=points["paired_point"].to_numpy(dtype=np.int64) - 1,
        # In scan ranges, not in prices: only which points leave the price where it is matters here.
        price_shift=points["price"].to_numpy(dtype=np.float64),
        volatility_shift=points["volatility"].to_numpy(dtype=np.float64),
        weight=points["weight"].to_numpy(dtype=np.float64),
    )


def _contracts(file: SpnFile, requirement_class: int) -> SpanContracts:
    is_of_class = (file.risk_arrays["requirement_class"] == requirement_class).to_numpy()
    arrays = file.risk_arrays[is_of_class].assign(array_row=np.flatnonzero(is_of_class))
    links = file.family_links.drop_duplicates(["exchange", "family_id"])[
        ["exchange", "family_id", "combined_commodity", "delta_scaling"]
    ].rename(columns={"delta_scaling": "link_scaling"})
    table = (
        arrays.drop(columns=["line"])
        .merge(file.contracts, left_on="contract", right_index=True)
        .merge(links, on=["exchange", "family_id"])
    )
    if table.empty:
        raise _unsupported("ra", f"no risk arrays of requirement class {requirement_class}")
    is_option = table["family_type"].isin(_OPTIONS).to_numpy()
    is_paid_for = is_option & (table["value_method"] != _FUTURES_STYLE).to_numpy()
    return SpanContracts(
        contract_id=np.array([contract_name(row) for row in _records(table)], dtype=object),
        combined_commodity=table["combined_commodity"].to_numpy(dtype=object),
        period=table["period"].to_numpy(dtype=object),
        array=file.arrays[table["array_row"].to_numpy(dtype=np.int64)],
        composite_delta=table["composite_delta"].to_numpy(dtype=np.float64),
        delta_scaling=table["delta_scaling"].fillna(table["link_scaling"]).fillna(1.0).to_numpy(dtype=np.float64),
        is_option=is_option,
        is_call=(table["right"] == "C").to_numpy(dtype=np.bool_),
        option_value=np.where(is_paid_for, table["value"].to_numpy(dtype=np.float64), 0.0),
        price_scan_range=table["price_scan_range"].to_numpy(dtype=np.float64),
    )


def _commodity(
    row: Mapping[str, Any], file: SpnFile, requirement_class: int, *, factors: Mapping[str, float]
) -> CombinedCommodity:
    code = str(row["combined_commodity"])
    tiers = file.tiers[file.tiers["combined_commodity"] == code]
    spot = file.spot_rates[
        (file.spot_rates["combined_commodity"] == code) & (file.spot_rates["requirement_class"] == requirement_class)
    ]
    method = str(row["somMeth"]) or "GROSS"
    if method not in ("GROSS", "MAX"):
        raise _unsupported("somMeth", f"line {row['line']}: method {method!r} of {code}")
    price_risk_method = str(row["wfprMeth"]) or PriceRiskMethod.NORMAL
    if price_risk_method not in set(PriceRiskMethod):
        raise _unsupported("wfprMeth", f"line {row['line']}: method {price_risk_method!r} of {code}")
    som = tiers[(tiers["kind"] == "som") & tiers["requirement_class"].isin([0, requirement_class])]
    return CombinedCommodity(
        code=code,
        currency=str(row["currency"]),
        price_risk_method=PriceRiskMethod(price_risk_method),
        scan_tiers=_tiers(tiers, "scan"),
        intra_tiers=_tiers(tiers, "intra"),
        # One tier of everything is what legs call tier 0.
        inter_tiers=_tiers(tiers, "inter") if (tiers[tiers["kind"] == "inter"]["tier"] != 0).any() else (),
        short_option_tiers=tuple(
            ShortOptionTier(tier=tier["tier"], start=tier["start"], end=tier["end"], rate=tier["rate"])
            for tier in _records(som.dropna(subset=["rate"]))
        ),
        short_option_method="gross" if method == "GROSS" else "max",
        intra_spreads=tuple(_intra_spreads(code, file, requirement_class)),
        delivery=tuple(
            DeliveryCharge(period=rate["period"], in_spread=rate["in_spread"], outright=rate["outright"])
            for rate in _records(spot)
        ),
        adjustment=Decimal(str(factors.get(code, 1))),
        is_option_value_capped=bool(row["is_available_option_value_capped"]),
    )


def _tiers(tiers: pd.DataFrame, kind: str) -> tuple[Tier, ...]:
    rows = tiers[tiers["kind"] == kind].drop_duplicates("tier")
    return tuple(Tier(tier=tier["tier"], start=tier["start"], end=tier["end"]) for tier in _records(rows))


def _intra_spreads(code: str, file: SpnFile, requirement_class: int) -> list[IntraSpread]:
    spreads = []
    selected = file.spreads[(file.spreads["scope"] == "intra") & (file.spreads["combined_commodity"] == code)]
    for index, spread in zip(selected.index, _records(selected), strict=True):
        rate = _rate(file, index, requirement_class)
        method = ChargeMethod(spread["charge_method"] or ChargeMethod.FLAT)
        legs = _records(file.spread_legs[file.spread_legs["spread_row"] == index])
        spreads.append(
            IntraSpread(
                priority=spread["spread"],
                charge_method=method,
                rate=rate["per_spread_rate"] if method == ChargeMethod.PER_MONTH else rate["rate"],
                per_month=rate["per_month_rate"] if method == ChargeMethod.PER_MONTH else 0.0,
                legs=tuple(
                    IntraLeg(
                        side=leg["side"],
                        ratio=leg["ratio"],
                        tier=leg["tier"] if leg["kind"] == "tLeg" else None,
                        period=leg["period"] if leg["kind"] == "pLeg" else None,
                    )
                    for leg in legs
                ),
            )
        )
    return spreads


def _inter_spreads(file: SpnFile, requirement_class: int) -> list[InterSpread]:
    spreads = []
    is_wanted = file.spreads["scope"].isin(["inter", "inter_clearing"]) & (file.spreads["kind"] == "delta")
    is_unknown = ~is_wanted & (file.spreads["scope"] != "intra") & (file.spreads["kind"] == "delta")
    if is_unknown.any():
        line = file.spreads[is_unknown]["line"].iloc[0]
        raise _unsupported("dSpread", f"line {line}: a delta-based spread among the super-inter-commodity spreads")
    selected = file.spreads[is_wanted]
    for index, spread in zip(selected.index, _records(selected), strict=True):
        legs = _records(file.spread_legs[file.spread_legs["spread_row"] == index])
        spreads.append(
            InterSpread(
                priority=spread["spread"],
                stage="inter_commodity" if spread["scope"] == "inter" else "inter_exchange",
                charge_method=ChargeMethod(spread["charge_method"] or ChargeMethod.WEIGHTED),
                rate=_rate(file, index, requirement_class)["rate"],
                legs=tuple(
                    InterLeg(
                        combined_commodity=leg["combined_commodity"],
                        side=leg["side"],
                        ratio=leg["ratio"],
                        tier=max(leg["tier"], 0),
                        rate=0.0 if leg["kind"] == "awayLeg" else _stated(leg["rate"]),
                    )
                    for leg in legs
                ),
            )
        )
    return spreads


def _scanning_spreads(file: SpnFile, requirement_class: int) -> list[ScanningSpread]:
    spreads = []
    selected = file.spreads[file.spreads["kind"] == "scanning"]
    for index, spread in zip(selected.index, _records(selected), strict=True):
        legs = _records(file.spread_legs[file.spread_legs["spread_row"] == index])
        targets = [leg for leg in legs if leg["is_target"]]
        if len(targets) != 1:
            raise _unsupported("sSpread", f"line {spread['line']}: {len(targets)} target legs, one is needed")
        shared = file.spread_rates[
            (file.spread_rates["spread_row"] == index) & (file.spread_rates["requirement_class"] == requirement_class)
        ]["rate"]
        common = float(shared.iloc[0]) if len(shared) else None
        others = [leg for leg in legs if not leg["is_target"]]
        if common is None and any(_stated(leg["rate"]) is None for leg in others):
            raise _unsupported("sSpread", f"line {spread['line']}: a leg without a credit rate")
        spreads.append(
            ScanningSpread(
                priority=spread["spread"],
                target=targets[0]["combined_commodity"],
                is_target_required=spread["is_target_required"],
                minimum_legs=max(spread["minimum_legs"], 1),
                legs=tuple(
                    ScanningLeg(
                        combined_commodity=leg["combined_commodity"],
                        ratio=leg["ratio"],
                        rate=common if _stated(leg["rate"]) is None else leg["rate"],
                        is_required=leg["is_required"],
                    )
                    for leg in others
                ),
            )
        )
    return spreads


def _rate(file: SpnFile, spread_row: int, requirement_class: int) -> Mapping[str, float]:
    rates = file.spread_rates[
        (file.spread_rates["spread_row"] == spread_row) & (file.spread_rates["requirement_class"] == requirement_class)
    ]
    if rates.empty:
        line = file.spreads["line"].iloc[spread_row]
        raise _unsupported("rate", f"line {line}: a spread without a rate of requirement class {requirement_class}")
    return _records(rates)[0]


def _stated(rate: float) -> float | None:
    return None if np.isnan(rate) else rate


def _unsupported(element: str, what: str) -> MarginError:
    return MarginError(
        FailureReason.INVALID_REQUEST,
        f"risk parameter file, element {element}: {what} cannot be used; give another file or requirement class",
    )
