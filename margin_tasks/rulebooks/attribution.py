"""Where a requirement comes from: shares of positions, what each adds, and the sensitivities behind the worst loss.

Three answers to "how much is this position", which differ wherever positions offset each other:

- its *share* (Euler): all shares add up to the requirement to the last digit; see ``rulebooks.blocks``;
- its *incremental* requirement: the requirement less what it would be without the position;
- the *marginal* requirement of one contract more, or of one less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.risk.amounts import UNITS_PER_ONE, decimals_from_units, floats_from_units, sum_units, to_units
from margin_tasks.risk.arrays import RiskArrays
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.requirement import CONSERVATIVE_ADD_ON, WHOLE_ACCOUNT, Requirement, requirement
from margin_tasks.rulebooks.shares import Shares, parts_of, scaled_parts, shared_initial, shared_maintenance

# A position is made larger and smaller by this part of itself: small enough for a slope, large enough for its digits.
_STEPS_PER_POSITION = 128

# Positions of pseudo-accounts that are margined at a time: bounds the memory of :func:`position_effects`.
_ROWS_AT_ONCE = 500_000


def attribute(result: Requirement, *, is_attributed: BoolArray | None = None) -> tuple[Shares, ...]:
    """Divide every component of a requirement over the positions, the conservative add-on last.

    The shares of a component add up to it in every netting set, those of the add-on in every account, exactly. Blocks
    know their own shares; those of a methodology come from margining the account again with each position a little
    larger and a little smaller, see docs/methodology/attribution.md.

    Args:
        result: requirement of some accounts.
        is_attributed: accounts whose requirement under a methodology is divided, shape (A,); None: all. The others'
            shares are zero. Without meaning for blocks, which divide all.
    """
    exposure, book = result.exposure, result.exposure.book
    shares: tuple[Shares, ...] = ()
    for block, charge in zip(result.rulebook.blocks, result.charges, strict=result.rulebook.methodology is None):
        shares += (block.attribution(exposure, charge, shares),)
    is_divided = np.ones(len(result.initial_units), dtype=bool)
    if result.rulebook.methodology is not None:
        is_divided = is_divided if is_attributed is None else is_attributed
        shares = _bumped_shares(result, is_attributed=is_divided)
    rate = result.rulebook.conservative.multiplier - 1.0
    initial = scaled_parts(shared_initial(shares, positions=len(book)), rate, what=CONSERVATIVE_ADD_ON)
    maintenance = scaled_parts(shared_maintenance(shares, positions=len(book)), rate, what=CONSERVATIVE_ADD_ON)
    add_on = Shares(
        component=CONSERVATIVE_ADD_ON,
        initial_units=initial.adding_up_to(np.where(is_divided, result.add_on_initial_units, 0), group=book.account),
        maintenance_units=maintenance.adding_up_to(
            np.where(is_divided, result.add_on_maintenance_units, 0), group=book.account
        ),
    )
    return (*shares, add_on)


def _bumped_shares(result: Requirement, *, is_attributed: BoolArray) -> tuple[Shares, ...]:
    """Euler shares of a methodology's components by central differences.

    Share of a position = [C(q + hq) - C(q - hq)] / 2h, the component C taken in the position's own netting set. What
    the shares of a netting set then lack of its component (minimums, tiers, credits between netting sets) is divided
    in proportion to their size, and by notional where all of them are zero.
    """
    exposure, book = result.exposure, result.exposure.book
    positions = np.flatnonzero(is_attributed[book.account])
    slopes = np.zeros((2, len(result.charges), len(book)))
    sizes = np.bincount(book.account, minlength=len(is_attributed))
    # Whole accounts at a time: as many as their positions squared, in both directions, leave inside the bound.
    rows = np.cumsum(2 * sizes[book.account[positions]])
    for chunk in np.split(positions, np.flatnonzero(np.diff(rows // _ROWS_AT_ONCE)) + 1):
        slopes[:, :, chunk] = _slopes(result, positions=chunk)
    in_attributed = is_attributed[exposure.set_account]
    weight = np.abs(exposure.quantity) * exposure.figures.notional_usd[book.instrument]
    shares = []
    for number, charge in enumerate(result.charges):
        units = [
            _completed(
                slopes[kind, number],
                total_units=np.where(in_attributed, total, 0),
                group=exposure.set_of,
                weight=np.where(is_attributed[book.account], weight, 0.0),
                what=charge.component,
            )
            for kind, total in enumerate((charge.initial_units, charge.maintenance_units))
        ]
        shares.append(Shares(component=charge.component, initial_units=units[0], maintenance_units=units[1]))
    return tuple(shares)


def _slopes(result: Requirement, *, positions: IntArray) -> FloatArray:
    """Slope of each position's components to its size, USD: shape (2, components, positions), initial first."""
    exposure, book = result.exposure, result.exposure.book
    first = np.searchsorted(book.account, book.account[positions])
    size = np.searchsorted(book.account, book.account[positions], side="right") - first
    # One pseudo-account for each position and direction, holding the whole account.
    first, size, bumped = (np.tile(column, 2) for column in (first, size, positions))
    start = np.cumsum(size) - size
    pseudo = np.repeat(np.arange(len(size)), size)
    held = np.arange(len(pseudo)) - start[pseudo] + first[pseudo]
    is_up = np.arange(len(size)) < len(positions)
    quantity = book.quantity_units[held]
    step = np.where(is_up[pseudo], 1, -1) * (quantity // _STEPS_PER_POSITION)
    again = requirement(
        result.rulebook,
        book=Book(
            account=pseudo,
            instrument=book.instrument[held],
            quantity_units=np.where(held == bumped[pseudo], quantity + step, quantity),
        ),
        gain_units=exposure.gain_units[held],
        instruments=exposure.instruments,
        figures=exposure.figures,
        arrays=None,
        account_ids=[""] * len(size),
        is_conservative=np.zeros(len(size), dtype=bool),
        prepared=result.prepared,
    )
    # Positions keep their order, so the bumped one is found in its own netting set.
    own = again.exposure.set_of[start + bumped - first]
    amounts = np.array(
        [
            [floats_from_units(getattr(charge, name)[own]) for charge in again.charges]
            for name in ("initial_units", "maintenance_units")
        ]
    ).reshape(2, len(again.charges), 2, len(positions))
    slopes: FloatArray = (amounts[:, :, 0] - amounts[:, :, 1]) * (_STEPS_PER_POSITION / 2.0)
    return slopes


def _completed(
    slopes: FloatArray, *, total_units: IntArray, group: IntArray, weight: FloatArray, what: str
) -> IntArray:
    """Shares of shape (P,) that add up to the total of each group, from slopes that nearly do."""
    groups = len(total_units)
    size = np.bincount(group, weights=np.abs(slopes), minlength=groups)
    weight = np.where(size[group] > 0.0, np.abs(slopes), weight)
    lacking = floats_from_units(total_units) - np.bincount(group, weights=slopes, minlength=groups)
    whole = np.bincount(group, weights=weight, minlength=groups)
    part = np.divide(weight, whole[group], out=np.zeros_like(weight), where=whole[group] > 0.0)
    return parts_of(slopes + lacking[group] * part, what=what).adding_up_to(total_units, group=group)


def shares_frame(result: Requirement, shares: Sequence[Shares], *, account_ids: Sequence[str]) -> pd.DataFrame:
    """Columns of ``RISK.requirement_shares`` for one rulebook: every share that is not zero."""
    exposure, book = result.exposure, result.exposure.book
    account = np.array([*account_ids, None], dtype=object)[book.account]
    instrument = exposure.instruments.instrument_id[book.instrument]
    netting_set = exposure.set_name[exposure.set_of]
    frames = []
    for share in shares:
        is_of_account = share.component == CONSERVATIVE_ADD_ON
        for margin_type, units in (("initial", share.initial_units), ("maintenance", share.maintenance_units)):
            rows = np.flatnonzero(units)
            frames.append(
                pd.DataFrame(
                    {
                        "rulebook_id": result.rulebook.rulebook_id,
                        "account_id": account[rows],
                        "netting_set": WHOLE_ACCOUNT if is_of_account else netting_set[rows],
                        "instrument_id": instrument[rows],
                        "component": share.component,
                        "margin_type": margin_type,
                        "amount": decimals_from_units(units[rows]),
                        "currency": result.rulebook.currency,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def stand_alone_units(result: Requirement, *, arrays: RiskArrays | None, is_conservative: BoolArray) -> IntArray:
    """Sum of the initial margins of each account's positions, each margined alone, shape (A,), units of 1e-8.

    What it exceeds the requirement by is what the rulebook recognises as hedged or diversified.
    """
    exposure, book = result.exposure, result.exposure.book
    alone = requirement(
        result.rulebook,
        book=Book(
            account=np.arange(len(book), dtype=np.int64),
            instrument=book.instrument,
            quantity_units=book.quantity_units,
        ),
        gain_units=exposure.gain_units,
        instruments=exposure.instruments,
        figures=exposure.figures,
        arrays=arrays,
        account_ids=[""] * len(book),
        is_conservative=is_conservative[book.account],
        prepared=result.prepared,
    )
    return sum_units(alone.initial_units, group=book.account, groups=len(is_conservative), what="stand-alone margin")


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionEffects:
    """What each position of one account does to its initial margin: int64 arrays of shape (P,), USD units of 1e-8.

    ``requirement_units``: of the whole account. ``stand_alone_units``: of the position alone. ``incremental_units``:
    the requirement less that without the position; negative when the position hedges. ``one_more_units``,
    ``one_less_units``: change of the requirement when the position is one contract longer, or shorter.
    """

    requirement_units: int
    stand_alone_units: IntArray
    incremental_units: IntArray
    one_more_units: IntArray
    one_less_units: IntArray

    @property
    def diversification_units(self) -> int:
        """Sum of the stand-alone requirements less the requirement: what offsets save."""
        return int(self.stand_alone_units.sum()) - self.requirement_units


def position_effects(
    result: Requirement, *, arrays: RiskArrays | None, account: int, account_id: str, is_conservative: bool
) -> PositionEffects:
    """Margin one account without each position, on each position alone, and with one contract more and less of each.

    Every variant is a pseudo-account, and all of them are margined together. The day's gain of a position goes with
    it; it stays when a contract is added or taken away.

    Args:
        result: requirement that holds the account.
        arrays: risk arrays that it was computed from.
        account: which account.
        account_id: its name, for errors.
        is_conservative: whether the account is margined conservatively.

    Raises:
        MarginError: FIGURE_NOT_FINITE, naming the account, when an amount cannot be held.
    """
    exposure = result.exposure
    rows = np.flatnonzero(exposure.book.account == account)
    quantity = exposure.book.quantity_units[rows]
    variants = len(_VARIANTS) * len(rows)
    margined = np.zeros(variants, dtype=np.int64)
    at_once = max(_ROWS_AT_ONCE // max(len(rows), 1), 1)
    for start in range(0, variants, at_once):
        variant = np.arange(start, min(start + at_once, variants))
        held = _held(variant, quantity=quantity)
        pseudo, position = np.nonzero(held)
        margined[variant] = requirement(
            result.rulebook,
            book=Book(
                account=pseudo.astype(np.int64),
                instrument=exposure.book.instrument[rows][position],
                quantity_units=held[pseudo, position],
            ),
            gain_units=exposure.gain_units[rows][position],
            instruments=exposure.instruments,
            figures=exposure.figures,
            arrays=arrays,
            account_ids=[account_id] * len(variant),
            is_conservative=np.full(len(variant), is_conservative),
            prepared=result.prepared,
        ).initial_units
    without, alone, more, less = margined.reshape(len(_VARIANTS), len(rows))
    whole = int(result.initial_units[account])
    return PositionEffects(
        requirement_units=whole,
        stand_alone_units=alone,
        incremental_units=whole - without,
        one_more_units=more - whole,
        one_less_units=less - whole,
    )


# Order in which the variants of every position are numbered: variant = kind x positions + position.
_VARIANTS = ("without", "alone", "one more", "one less")


def _held(variant: IntArray, *, quantity: IntArray) -> IntArray:
    """Contracts in units of 1e-8 that each pseudo-account holds, shape (V, P)."""
    kind, position = np.divmod(variant, len(quantity))
    row = np.arange(len(variant))
    is_alone = kind == _VARIANTS.index("alone")
    held = np.where(is_alone[:, None], 0, quantity)
    own = quantity[position]
    held[row, position] = np.select(
        [kind == _VARIANTS.index("without"), is_alone, kind == _VARIANTS.index("one more")],
        [np.zeros_like(own), own, own + UNITS_PER_ONE],
        default=own - UNITS_PER_ONE,
    )
    return held


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivities:
    """Of one long contract of each position, arrays of shape (P,), units as the registry of fields states them."""

    delta: FloatArray
    gamma: FloatArray
    vega_usd: FloatArray
    theta_usd: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketChange:
    """What a scenario does to each position: arrays of shape (P,).

    ``level_change``: of the forward or mark, USD. ``volatility_change``: absolute, 0.1 = 10 points. ``days``: that
    pass. ``weight``: share of the outcome that counts.
    """

    level_change: FloatArray
    volatility_change: FloatArray
    days: FloatArray
    weight: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class TaylorParts:
    """A scenario outcome by its causes: int64 arrays of shape (P,), USD in units of 1e-8; they add up to the outcome.

    ``rest_units``: what the first terms of the series do not explain: large moves, cross effects, rates, the move of
    the settlement currency, and volatility read elsewhere on the surface.
    """

    delta_units: IntArray
    gamma_units: IntArray
    vega_units: IntArray
    theta_units: IntArray
    rest_units: IntArray


def taylor_parts(
    outcome_units: IntArray, *, quantity: FloatArray, sensitivities: Sensitivities, change: MarketChange
) -> TaylorParts:
    """Explain outcomes by delta x dF, gamma x dF^2 / 2, vega x dv and theta x dt, each weighted like the outcome.

    Args:
        outcome_units: profit or loss of each position in its scenario, shape (P,).
        quantity: contracts, shape (P,).
        sensitivities: per contract.
        change: what the scenario moves.
    """
    held = quantity * change.weight
    moved = change.level_change
    delta = to_units(held * sensitivities.delta * moved, what="delta effect")
    gamma = to_units(held * sensitivities.gamma * np.square(moved) / 2.0, what="gamma effect")
    vega = to_units(held * sensitivities.vega_usd * change.volatility_change, what="vega effect")
    theta = to_units(held * sensitivities.theta_usd * change.days, what="theta effect")
    return TaylorParts(
        delta_units=delta,
        gamma_units=gamma,
        vega_units=vega,
        theta_units=theta,
        rest_units=outcome_units - (delta + gamma + vega + theta),
    )
