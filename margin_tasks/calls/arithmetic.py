"""Call arithmetic: what is missing, what is called for it, and what may be given back.

Pure rules on columns of exact decimals, taken inside :func:`~margin_tasks.collateral.amounts.exact_arithmetic`; no
amount passes through a float. Sources: 17 CFR 39.13(g)(8), EMIR art. 41, the margin terms of ISO 20022 colr.003
(threshold, minimum transfer amount, rounding amount and method), and ``docs/methodology/calls.md`` where those are
silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, ROUND_UP, Decimal
from typing import Any, Literal

import pandas as pd

from margin_tasks.collateral.amounts import ZERO, exact_arithmetic, positive_part, to_amounts
from margin_tasks.collateral.conversion import FxTerms
from margin_tasks.contracts.failures import ContractError, FailureReason

RoundingMode = Literal["DRUP", "DRDW", "CLSR", "NONE"]
"""Rounding methods of ISO 20022: up, down, to the closest multiple with half up, and not at all."""

CALL = "call"
EXCESS_AVAILABLE = "excess_available"
BELOW_MINIMUM = "below_minimum_transfer"

_DECIMAL_ROUNDING: dict[str, str] = {"DRUP": ROUND_UP, "DRDW": ROUND_DOWN, "CLSR": ROUND_HALF_UP}
_SMALLEST = Decimal(1).scaleb(-8)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferTerms:
    """What moves money and in which steps.

    A call is made from ``minimum_transfer_amount`` on, an excess is given back from ``minimum_release_amount`` on (the
    published rule knows no least amount of a release, hence 0 unless stated). ``rounding`` applies to calls; a release
    is rounded down under every method but NONE, under which nothing is rounded in either direction.
    """

    threshold: Decimal = Decimal(0)
    minimum_transfer_amount: Decimal = Decimal(0)
    minimum_release_amount: Decimal = Decimal(0)
    rounding_unit: Decimal = Decimal("0.01")
    rounding: RoundingMode = "DRUP"


def rounded(amounts: pd.Series[Any], *, unit: Decimal, mode: RoundingMode) -> pd.Series[Any]:
    """Amounts that are not negative, each as a multiple of ``unit`` by an ISO 20022 rounding method."""
    if mode == "NONE":
        return amounts.astype(object)
    rounding = _DECIMAL_ROUNDING[mode]
    with exact_arithmetic():
        return amounts.map(lambda amount: (amount / unit).quantize(Decimal(1), rounding) * unit).astype(object)


def shortfall(
    requirement: pd.Series[Any], collateral: pd.Series[Any], pending_in: pd.Series[Any], *, threshold: Decimal
) -> pd.Series[Any]:
    """max(0, requirement - threshold) - collateral - pending; negative where more is there than is needed.

    A threshold is exposure left uncollected: it never excuses collateral that is itself below zero.
    """
    with exact_arithmetic():
        exposure = positive_part(requirement.map(lambda amount: amount - threshold).astype(object))
        return (exposure - collateral - pending_in).astype(object)


def transfers(
    requirement: pd.Series[Any], collateral: pd.Series[Any], pending_in: pd.Series[Any], *, terms: TransferTerms
) -> pd.DataFrame:
    """Deficit, action and amount of every row, by the published rule of margin calls.

    The deficit is tested unrounded: at least the minimum transfer amount, and above zero. Then it is rounded. What
    rounds to nothing moves nothing.

    Args:
        requirement: what must be held.
        collateral: what is held, after haircut.
        pending_in: money on its way; counts once, here.
        terms: threshold, least amounts and rounding.

    Returns:
        ``deficit`` (signed: negative is an excess), ``action`` (``call``, ``excess_available`` or
        ``below_minimum_transfer``) and ``amount`` (0 where nothing moves), with the index of ``requirement``.
    """
    with exact_arithmetic():
        deficit = shortfall(requirement, collateral, pending_in, threshold=terms.threshold)
        due = positive_part(deficit)
        called = rounded(due, unit=terms.rounding_unit, mode=terms.rounding)
        is_called = (due > 0) & (due >= terms.minimum_transfer_amount) & (called > 0)
        released = releasable(
            positive_part(-deficit),
            unit=terms.rounding_unit,
            minimum=terms.minimum_release_amount,
            mode="NONE" if terms.rounding == "NONE" else "DRDW",
        )
        action = pd.Series(BELOW_MINIMUM, index=deficit.index, dtype=object)
        action = action.mask(deficit < 0, EXCESS_AVAILABLE).mask(is_called, CALL)
        amount = called.where(is_called, released)
    return pd.DataFrame({"deficit": deficit, "action": action, "amount": amount})


def releasable(
    excess: pd.Series[Any], *, unit: Decimal, minimum: Decimal, mode: Literal["DRDW", "NONE"] = "DRDW"
) -> pd.Series[Any]:
    """What may be given back of an excess: nothing below the least amount, else rounded down, never up.

    Rounding up would take collateral that the requirement needs, so that a release would open a deficit.
    """
    amounts = rounded(positive_part(excess), unit=unit, mode=mode)
    return amounts.where(excess >= minimum, ZERO).astype(object)


def to_restore(
    *,
    initial: pd.Series[Any],
    maintenance: pd.Series[Any],
    equity: pd.Series[Any],
    pending_in: pd.Series[Any],
    threshold: Decimal = ZERO,
) -> pd.Series[Any]:
    """What brings an account back to initial margin once it is below maintenance; 0 while it is not.

    Equity of exactly the maintenance margin is no breach. Money on its way may close the breach by itself.
    """
    with exact_arithmetic():
        is_breached = shortfall(maintenance, equity, pending_in, threshold=threshold) > 0
        missing = positive_part(shortfall(initial, equity, pending_in, threshold=threshold))
    return missing.where(is_breached, ZERO).astype(object)


# --- currencies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What one unit of each currency is worth in the base currency: as a surplus, and as a deficit to be covered."""

    surplus: Mapping[str, Decimal]
    deficit: Mapping[str, Decimal]


def simple_conversion(rates: Mapping[str, Decimal], *, haircut: Decimal) -> Conversion:
    """A surplus counts at its rate less one haircut, a deficit at its rate; ``rates``: base currency per unit."""
    with exact_arithmetic():
        return Conversion(
            surplus={currency: rate * (1 - haircut) for currency, rate in rates.items()}, deficit=dict(rates)
        )


def asymmetric_conversion(terms: Mapping[str, FxTerms], *, pool_currency: str) -> Conversion:
    """A surplus counts at 1 / (m (1 + h)), a deficit at 1 / (m (1 - h)): the house bears the move of neither.

    ``terms``: units m for one of the pool's currency and haircut h of every other currency.
    """
    own = {pool_currency: Decimal(1)}
    return Conversion(
        surplus={currency: found.surplus_rate for currency, found in terms.items()} | own,
        deficit={currency: found.deficit_rate for currency, found in terms.items()} | own,
    )


def currency_balances(positions: pd.DataFrame) -> pd.DataFrame:
    """Collateral and pending money less requirement of every account and currency.

    Args:
        positions: columns account_id, currency, requirement, collateral and pending_in; keys may repeat.

    Returns:
        account_id, currency, balance (positive: surplus), one row for each key, sorted.
    """
    with exact_arithmetic():
        balance = positions["collateral"] + positions["pending_in"] - positions["requirement"]
        keyed = positions[["account_id", "currency"]].assign(balance=balance.astype(object))
        return keyed.groupby(["account_id", "currency"], sort=True)[["balance"]].sum().reset_index()


def per_currency_shortfalls(balances: pd.DataFrame) -> pd.Series[Any]:
    """What is missing in each currency when none stands in for another."""
    return positive_part(-balances["balance"])


def pooled_shortfalls(balances: pd.DataFrame, *, conversion: Conversion) -> pd.Series[Any]:
    """What is missing in each currency when surpluses of an account cover its deficits in other currencies.

    The largest deficit by value is covered first, so that what stays open is open in few currencies; of equal ones the
    first by name. Amounts are rounded up at eight decimals.

    Args:
        balances: result of :func:`currency_balances`.
        conversion: worth of surpluses and deficits in the base currency.

    Returns:
        One amount for each row of ``balances``, 0 for a surplus.

    Raises:
        ContractError: a currency has no rate.
    """
    unknown = sorted(set(balances["currency"]) - (set(conversion.surplus) & set(conversion.deficit)))
    if unknown:
        raise ContractError(FailureReason.CONTRACT_BROKEN, f"no conversion rate for {', '.join(unknown)}")
    missing = pd.Series(ZERO, index=balances.index, dtype=object)
    with exact_arithmetic():
        for _, rows in balances.groupby("account_id", sort=False):
            pool = Decimal(0)
            needs = []
            for index, currency, balance in rows[["currency", "balance"]].itertuples(name=None):
                if balance > 0:
                    pool += balance * conversion.surplus[currency]
                elif balance < 0:
                    needs.append((balance * conversion.deficit[currency], currency, index, -balance))
            for value, currency, index, owed in sorted(needs):
                if pool <= 0:
                    missing[index] = owed
                    continue
                covered = min(pool, -value)
                pool -= covered
                left = owed if covered == 0 else owed - covered / conversion.deficit[currency]
                missing[index] = ZERO if covered == -value else left.quantize(_SMALLEST, ROUND_UP)
    return missing


# --- variation margin, clients and the house -------------------------------------------------------------------------


def variation_margin(positions: pd.DataFrame) -> pd.DataFrame:
    """Variation margin of positions, in cash and by currency: pays and collects net inside account and currency only.

    Args:
        positions: columns account_id, currency, quantity, previous_price, settlement_price and multiplier.

    Returns:
        account_id, currency, variation_margin (a gain is positive), sorted by both.
    """
    with exact_arithmetic():
        move = positions["settlement_price"] - positions["previous_price"]
        gain = (positions["quantity"] * move * positions["multiplier"]).astype(object)
        rows = positions[["account_id", "currency"]].assign(variation_margin=gain)
        return rows.groupby(["account_id", "currency"], sort=True)[["variation_margin"]].sum().reset_index()


def gross_margin(positions: pd.DataFrame, *, margin_per_lot: Decimal) -> Decimal:
    """Margin of an origin in which customers do not net: the sum over customers of what each owes alone.

    Args:
        positions: columns owner_id and quantity, of one product.
        margin_per_lot: what one lot owes, long or short.
    """
    with exact_arithmetic():
        lots = positions.groupby("owner_id")["quantity"].sum()
        return sum((abs(quantity) * margin_per_lot for quantity in lots), ZERO)


def net_margin(positions: pd.DataFrame, *, margin_per_lot: Decimal) -> Decimal:
    """Margin of an origin in which everything nets, as the house's own positions do."""
    with exact_arithmetic():
        total: Decimal = sum(positions["quantity"], ZERO)
        return abs(total) * margin_per_lot


def origin_balances(margins: pd.DataFrame) -> pd.DataFrame:
    """Deficit and excess of each member's origins: house accounts net, client accounts never do.

    A client's surplus covers neither another client nor the house, and a surplus of the house is shown as its own.

    Args:
        margins: columns member_id, origin (``house`` or ``client``), initial_margin and equity, one row per account.

    Returns:
        member_id, origin, deficit, excess; sorted by both.
    """
    with exact_arithmetic():
        missing = (margins["initial_margin"] - margins["equity"]).astype(object)
        rows = margins[["member_id", "origin"]].assign(missing=missing)
        is_house = rows["origin"] == "house"
        house = rows[is_house].groupby(["member_id", "origin"])[["missing"]].sum().reset_index()
        each = pd.concat([house, rows[~is_house]], ignore_index=True)
        each = each.assign(deficit=positive_part(each["missing"]), excess=positive_part(-each["missing"]))
        return each.groupby(["member_id", "origin"], sort=True)[["deficit", "excess"]].sum().reset_index()


def split_call(
    call_amount: pd.Series[Any], settlement_amount: pd.Series[Any], *, payment_unit: Decimal
) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """The part of each call that settles the day's loss, and the part that restores initial margin; both payable."""
    with exact_arithmetic():
        loss = rounded(positive_part(-settlement_amount), unit=payment_unit, mode="DRUP")
        variation = call_amount.where(call_amount <= loss, loss)
        return to_amounts(variation), to_amounts(call_amount - variation)
