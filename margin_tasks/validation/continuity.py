"""Does today carry on where yesterday ended? Today's feeds against the figures published for the day before.

A trades feed that is cut short is a valid feed: only the day before shows that positions moved without a trade.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from margin_tasks.contracts.frames import empty_frame
from margin_tasks.contracts.rules import RULES
from margin_tasks.contracts.tables import VALIDATION

_KEY = ["account_id", "instrument_id"]
RELATIVE_TOLERANCE = 1e-9


def check_continuity(
    feeds: Mapping[str, pd.DataFrame], *, previous_positions: pd.DataFrame, previous_prices: pd.DataFrame
) -> pd.DataFrame:
    """Report every position and mark that does not carry on from the day before.

    Args:
        feeds: typed feeds as accepted by the gate.
        previous_positions: ``account_id, instrument_id, quantity`` (Decimal) published for the day before.
        previous_prices: ``instrument_id, mark_price`` published for the day before.

    Returns:
        Rows of ``findings``, by feed and key; instruments that are no longer listed have expired and are left out.
    """
    listed = feeds["instruments"]["instrument_id"]
    broken = [
        *_broken_positions(feeds, previous_positions[previous_positions["instrument_id"].isin(listed)]),
        *_broken_marks(feeds["market_prices"], previous_prices),
    ]
    findings = pd.DataFrame(broken, columns=["feed", "field", "rule", "value", "message"]).assign(
        file="the day before",
        row=0,
        severity=lambda frame: [str(RULES[rule].severity) for rule in frame["rule"]],
        action=lambda frame: [str(RULES[rule].action) for rule in frame["rule"]],
    )
    empty = empty_frame(VALIDATION["findings"])
    return findings[list(empty.columns)].astype(empty.dtypes.to_dict()) if len(findings) else empty


def _broken_positions(feeds: Mapping[str, pd.DataFrame], previous: pd.DataFrame) -> list[tuple[str, ...]]:
    parts = {"before": previous, "traded": feeds["trades"], "now": feeds["positions"]}
    sums = pd.concat(
        {name: part.groupby(_KEY)["quantity"].sum().astype(float) for name, part in parts.items()}, axis=1
    ).fillna(0.0)
    scale = sums.abs().max(axis=1)
    gap = sums["now"] - sums["before"] - sums["traded"]
    broken = sums[gap.abs() > RELATIVE_TOLERANCE * scale].sort_index()
    return [
        (
            "positions",
            "quantity",
            "position_not_continuous",
            f"{account_id} {instrument_id}",
            f"account {account_id} held {row.before:g} {instrument_id} the day before and traded {row.traded:g}, which "
            f"does not make {row.now:g}; deliver the missing trades, or the transfer that explains it",
        )
        for (account_id, instrument_id), row in zip(broken.index, broken.itertuples(index=False), strict=True)
    ]


def _broken_marks(prices: pd.DataFrame, previous: pd.DataFrame) -> list[tuple[str, ...]]:
    both = prices.merge(previous, on="instrument_id", suffixes=("", "_before")).sort_values("instrument_id")
    stated, used = both["previous_mark_price"].to_numpy(float), both["mark_price_before"].to_numpy(float)
    differs = ~np.isclose(stated, used, rtol=RELATIVE_TOLERANCE, atol=0.0)
    return [
        (
            "market_prices",
            "previous_mark_price",
            "previous_mark_differs",
            str(row.instrument_id),
            f"{row.instrument_id} states {row.previous_mark_price:g} as the mark of the day before, which settled at "
            f"{row.mark_price_before:g}; settlement between the two days would not add up",
        )
        for row in both[differs].itertuples(index=False)
    ]
