"""Today's feeds against what a home has published for the day before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import pandas as pd

from margin_tasks.pipeline.inquiries import list_runs
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import Settings
from margin_tasks.validation.continuity import check_continuity


def breaks_with_the_day_before(
    here: Settings,
    feeds: Mapping[str, pd.DataFrame],
    *,
    business_date: date,
    holder: str,
    is_read_only: bool = False,
) -> pd.DataFrame | None:
    """Return what does not carry on from the figures published for the day before, None where there are none.

    Args:
        here: settings; the lake of their home is read.
        feeds: typed feeds as accepted by the gate.
        business_date: the clearing day.
        holder: who reads, for others that wait.
        is_read_only: the lake is not made where there is none.

    Returns:
        Rows of ``findings``.

    Raises:
        MarginError: NOT_FOUND when there is no lake to read, LAKE_BUSY.
    """
    before = business_date - timedelta(days=1)
    with lake(here, holder=holder, is_read_only=is_read_only) as opened:
        standing = [
            other["run_id"]
            for other in list_runs(opened)
            if (other["business_date"], other["session"]) == (before, "EOD")
            and other["status"] == "published"
            and other["superseded_by"] is None
        ]
        if not standing:
            return None
        positions, prices = (
            opened.query(f"select {columns} from {table} where run_id = ?", [standing[0]])  # noqa: S608
            for columns, table in (
                ("account_id, instrument_id, quantity", "risk.position_values"),
                ("instrument_id, mark_price", "risk.valuations"),
            )
        )
    return check_continuity(feeds, previous_positions=positions.to_pandas(), previous_prices=prices.to_pandas())
