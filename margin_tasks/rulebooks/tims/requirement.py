"""Portfolio margin of many accounts at once: class groups, product groups, the account."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.sparse import csr_array

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.rulebooks.ordering import groups_by
from margin_tasks.rulebooks.tims.parameters import PortfolioMarginRules

MINIMUM_BINDS = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginedContracts:
    """What the rules read about each instrument: arrays of shape (I,).

    ``class_group``: instruments on the same underlying, netted in full (an index and the fund on it are one group).
    ``product_group``: class groups that offset each other in part; the same for every instrument of a class group.
    ``pnl``: USD per long contract at the points, shape (I, points), gain positive, the points of its class group.
    ``market_value``: USD per long contract. ``is_option``: has the minimum. ``multiplier``: units of the underlying.
    """

    instrument_id: TextArray
    class_group: IntArray
    product_group: IntArray
    is_option: BoolArray
    multiplier: FloatArray
    market_value: FloatArray
    pnl: FloatArray

    def __post_init__(self) -> None:
        for column in fields(self):
            if len(getattr(self, column.name)) != len(self):
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    f"contracts: {column.name} has not {len(self)} entries, one for each instrument",
                )
        is_bad = ~(np.isfinite(self.pnl).all(axis=1) & np.isfinite(self.market_value) & (self.multiplier > 0.0))
        self._refuse(
            is_bad, FailureReason.PRICE_UNAVAILABLE, "value or outcome is not finite, or multiplier not positive"
        )
        self._refuse((self.class_group < 0) | (self.product_group < 0), FailureReason.INVALID_REQUEST, "is in no group")
        order = np.lexsort((self.product_group, self.class_group))
        groups, products = self.class_group[order], self.product_group[order]
        is_torn = np.zeros(len(self), dtype=bool)
        is_torn[order[1:]] = (groups[1:] == groups[:-1]) & (products[1:] != products[:-1])
        self._refuse(is_torn, FailureReason.INVALID_REQUEST, "its class group is in two product groups; name one")

    def __len__(self) -> int:
        return len(self.instrument_id)

    def _refuse(self, is_bad: BoolArray, reason: FailureReason, what: str) -> None:
        if is_bad.any():
            named = ", ".join(str(name) for name in self.instrument_id[is_bad][:5])
            raise MarginError(reason, f"instruments {named}: {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdings:
    """Positions of A accounts: ``account``, ``instrument`` (indices) and ``quantity`` (long +), all of shape (P,)."""

    account_id: TextArray
    account: IntArray
    instrument: IntArray
    quantity: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMargin:
    """Class groups or product groups of accounts: arrays of shape (G,), by account, then group.

    ``pnl``: shape (G, points). ``worst_loss``: never negative. ``worst_point``: first point of the worst loss,
    MINIMUM_BINDS where the minimum is larger. ``minimum`` and ``requirement`` in USD.
    """

    account: IntArray
    group: IntArray
    pnl: FloatArray
    worst_loss: FloatArray
    worst_point: IntArray
    minimum: FloatArray
    requirement: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PortfolioMargin:
    """Margin of A accounts, USD.

    ``class_groups``: each as if it stood alone. ``product_groups``: with the offsets that the rules allow.
    ``offset``: what they save, shape (A,). ``maintenance_margin``, shape (A,): the sum over product groups; the rules
    know one figure, so that ``initial_margin`` is the same.
    """

    account_id: TextArray
    class_groups: GroupMargin
    product_groups: GroupMargin
    offset: FloatArray
    maintenance_margin: FloatArray

    @property
    def initial_margin(self) -> FloatArray:
        """The same as maintenance margin."""
        return self.maintenance_margin


def portfolio_margin(
    rules: PortfolioMarginRules, *, contracts: MarginedContracts, holdings: Holdings
) -> PortfolioMargin:
    """Margin every account.

    Inside a class group gains and losses net in full at every point. Inside a product group, at every point of the same
    number, a class group's gain counts with the offset, a loss in full. A group owes its worst loss, and no less than
    the sum of its minimums.

    Args:
        rules: the version in force.
        contracts: I instruments, valued at the points of their class groups.
        holdings: positions of A accounts, an instrument once for each account.

    Returns:
        Every component, for each account in the order of ``holdings.account_id``.

    Raises:
        MarginError: UNKNOWN_INSTRUMENT or UNKNOWN_ACCOUNT for an index that does not exist; INVALID_REQUEST, naming the
            account, for a quantity that is not finite or a pnl of other points; FIGURE_NOT_FINITE for a margin that
            cannot be held.
    """
    _refuse_unusable(rules, contracts, holdings)
    quantity, instrument = holdings.quantity, holdings.instrument
    of_class = contracts.class_group[instrument]
    classes, segment = _pairs(holdings.account, of_class)
    book = csr_array((quantity, (segment, instrument)), shape=(len(classes), len(contracts)))
    class_pnl = np.asarray(book @ contracts.pnl)
    minimum = _added_up(_minimum(rules, contracts, holdings), row=segment, rows=len(classes))
    class_groups = _group_margin(classes, class_pnl, minimum)

    product_of_class = np.zeros(int(contracts.class_group.max(initial=-1)) + 1, dtype=np.int64)
    product_of_class[contracts.class_group] = contracts.product_group
    products, row = _pairs(classes[:, 0], product_of_class[classes[:, 1]])
    counted = np.where(class_pnl > 0.0, rules.product_group_offset * class_pnl, class_pnl)
    added = csr_array((np.ones(len(row)), (row, np.arange(len(row)))), shape=(len(products), len(row)))
    product_pnl = np.asarray(added @ counted)
    product_groups = _group_margin(products, product_pnl, _added_up(minimum, row=row, rows=len(products)))

    accounts = len(holdings.account_id)
    total = _added_up(product_groups.requirement, row=products[:, 0], rows=accounts)
    alone = _added_up(class_groups.requirement, row=classes[:, 0], rows=accounts)
    if not np.isfinite(total).all():
        named = ", ".join(str(name) for name in holdings.account_id[~np.isfinite(total)][:5])
        raise MarginError(FailureReason.FIGURE_NOT_FINITE, f"accounts {named}: margin is not finite; check quantities")
    return PortfolioMargin(
        account_id=holdings.account_id,
        class_groups=class_groups,
        product_groups=product_groups,
        offset=alone - total,
        maintenance_margin=total,
    )


def _minimum(rules: PortfolioMarginRules, contracts: MarginedContracts, holdings: Holdings) -> FloatArray:
    """Least requirement of each position, shape (P,)."""
    at, each = holdings.instrument, np.where(contracts.is_option, rules.minimum_per_unit * contracts.multiplier, 0.0)
    if rules.is_minimum_capped_by_long_value:
        capped = np.minimum(each, np.maximum(contracts.market_value, 0.0))
        each = np.where(holdings.quantity > 0.0, capped[at], each[at])
    else:
        each = each[at]
    minimum: FloatArray = each * np.abs(holdings.quantity)
    return minimum


def _pairs(one: IntArray, two: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct pairs of indices in ascending order, shape (G, 2), and the pair of each row."""
    groups = groups_by(one, two)
    first = groups.first
    return np.stack([one[first], two[first]], axis=1), groups.of_row


def _added_up(amount: FloatArray, *, row: IntArray, rows: int) -> FloatArray:
    return np.bincount(row, weights=amount, minlength=rows).astype(np.float64, copy=False)


def _group_margin(keys: IntArray, pnl: FloatArray, minimum: FloatArray) -> GroupMargin:
    worst = np.maximum(-pnl.min(axis=1), 0.0)
    return GroupMargin(
        account=keys[:, 0],
        group=keys[:, 1],
        pnl=pnl,
        worst_loss=worst,
        worst_point=np.where(minimum > worst, MINIMUM_BINDS, pnl.argmin(axis=1)).astype(np.int64),
        minimum=minimum,
        requirement=np.maximum(worst, minimum),
    )


def _refuse_unusable(rules: PortfolioMarginRules, contracts: MarginedContracts, holdings: Holdings) -> None:
    accounts, instruments = len(holdings.account_id), len(contracts)
    if not len(holdings.account) == len(holdings.instrument) == len(holdings.quantity):
        raise MarginError(FailureReason.INVALID_REQUEST, "holdings: columns of different length; state one of each")
    if contracts.pnl.shape != (instruments, rules.points):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"contracts: pnl of shape {contracts.pnl.shape}; value them at the {rules.points} points of the rules",
        )
    if ((holdings.account < 0) | (holdings.account >= accounts)).any():
        raise MarginError(FailureReason.UNKNOWN_ACCOUNT, f"holdings: an account is not one of the {accounts}")
    if ((holdings.instrument < 0) | (holdings.instrument >= instruments)).any():
        raise MarginError(FailureReason.UNKNOWN_INSTRUMENT, f"holdings: an instrument is not one of the {instruments}")
    is_bad = ~np.isfinite(holdings.quantity)
    if is_bad.any():
        named = ", ".join(sorted({str(name) for name in holdings.account_id[holdings.account[is_bad]]})[:5])
        raise MarginError(FailureReason.INVALID_REQUEST, f"accounts {named}: a quantity is not a finite number")
    if len(groups_by(holdings.account, holdings.instrument)) != len(holdings.account):
        raise MarginError(
            FailureReason.DUPLICATE_KEY, "holdings: an account holds an instrument twice; add the positions up"
        )
