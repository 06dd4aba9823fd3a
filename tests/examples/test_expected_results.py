"""The sample days give the results that `examples/expected` states, to the last digit.

`pytest tests/examples --regenerate` writes them anew: a figure may only change with an entry in the changelog.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from margin_tasks.contracts.failures import MarginError
from margin_tasks.contracts.frames import to_text
from margin_tasks.contracts.tables import FEEDS, RISK
from margin_tasks.pipeline import compute
from margin_tasks.pipeline.run import session_cut_off
from margin_tasks.pipeline.settings import PROJECT_ROOT
from margin_tasks.sample.source import SampleSource
from margin_tasks.validation import gate

EXPECTED = PROJECT_ROOT / "examples" / "expected"
TABLES = ("requirements", "account_margin", "margin_calls", "call_decisions")


@pytest.fixture(scope="module")
def sample() -> SampleSource:
    return SampleSource()


def results(sample: SampleSource, day: date) -> dict[str, pd.DataFrame]:
    deliveries = {feed: sample.pull(feed, business_date=day, session="EOD") for feed in FEEDS}
    gated = gate(deliveries, business_date=day, cutoff_at=session_cut_off(day, "EOD", None))
    assert gated.is_accepted
    valued = compute.value(gated.frames, quarantine=gated.quarantine, cutoff_at=session_cut_off(day, "EOD", None))
    return compute.margin(
        gated.frames,
        valued,
        quarantine=gated.quarantine,
        account_ids=gated.frames["accounts"]["account_id"].tolist(),
        cutoff_at=session_cut_off(day, "EOD", None),
        business_date=day,
    )


@pytest.mark.parametrize("day", [date(2026, 2, 4), date(2026, 2, 5)], ids=str)
def test_the_sample_gives_the_expected_results(sample: SampleSource, day: date, request: pytest.FixtureRequest) -> None:
    computed = results(sample, day)
    for name in TABLES:
        path: Path = EXPECTED / day.isoformat() / f"{name}.csv"
        table = to_text(computed[name], RISK[name]).fillna("").to_csv(index=False)
        if request.config.getoption("--regenerate"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(table, encoding="utf-8")
        assert table == path.read_text(encoding="utf-8"), f"{path.relative_to(PROJECT_ROOT)} differs"


def test_a_day_outside_the_sample_is_refused_by_name(sample: SampleSource) -> None:
    with pytest.raises(MarginError, match="2026-02-04, 2026-02-05"):
        sample.missing(date(2026, 2, 6), "EOD")
