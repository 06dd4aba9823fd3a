"""The marks of a real option chain on a day of stress, from the exchange's own forwards and volatilities.

Bounds: the index of the market data states the precision that the stored chain allows, to one significant digit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margin_tasks.pricing.black76 import DAYS_PER_YEAR, black76_price
from tests.reference.reading import data_file

CHAIN = "market/A1_deribit_options_stress_2026-01-28_2026-02-12.parquet"
SNAPSHOT = "2026-02-05 21:29"

# Coin per option on one coin. The forward of each row was read up to a minute before or after the mark.
MEDIAN_WITH_STORED_FORWARD, P99_WITH_STORED_FORWARD = 2e-5, 1e-3
# Marks have six decimals and volatilities four, which is worth 1.5e-6 coin at the median vega.
MEDIAN_WITH_IMPLIED_FORWARD, P99_WITH_IMPLIED_FORWARD = 2e-6, 3e-5


@pytest.fixture(scope="module")
def chain() -> pd.DataFrame:
    options = pd.read_parquet(data_file(CHAIN))
    return options[options["snapshot_ts"].dt.strftime("%Y-%m-%d %H:%M") == SNAPSHOT].reset_index(drop=True)


def absolute_errors(chain: pd.DataFrame, forward: pd.Series) -> np.ndarray:
    days = (chain["expiry_ts"] - chain["snapshot_ts"]) / pd.Timedelta(days=1)
    usd = black76_price(
        forward=forward,
        strike=chain["strike"],
        volatility=chain["mark_iv"],
        year_fraction=days / DAYS_PER_YEAR,
        is_call=chain["option_type"] == "call",
    )
    return np.abs(usd / forward.to_numpy() - chain["mark_price"].to_numpy())


def summary(errors: np.ndarray) -> tuple[float, float]:
    return float(np.median(errors)), float(np.percentile(errors, 99.0))


def test_marks_of_listed_inverse_options(chain, record_property):
    median, p99 = summary(absolute_errors(chain, chain["underlying_price"]))
    record_property("median_error_coin", median)
    record_property("p99_error_coin", p99)
    print(f"{len(chain)} options, stored forward: median error {median:.2e} coin, 99th percentile {p99:.2e} coin")
    assert float(f"{median:.0e}") <= MEDIAN_WITH_STORED_FORWARD
    assert float(f"{p99:.0e}") <= P99_WITH_STORED_FORWARD


def test_marks_of_listed_inverse_options_at_the_forward_of_their_parity(chain, record_property):
    series = ["currency", "expiry_ts", "strike"]
    marks = chain.pivot_table(index=series, columns="option_type", values="mark_price")
    # call - put = 1 - strike / forward, in coin
    implied = marks.index.get_level_values("strike") / (1.0 - (marks["call"] - marks["put"]))
    forward = chain[series].merge(implied.rename("forward").reset_index(), on=series, how="left")["forward"]
    median, p99 = summary(absolute_errors(chain, forward))
    record_property("median_error_coin", median)
    record_property("p99_error_coin", p99)
    print(f"{len(chain)} options, forward of parity: median error {median:.2e} coin, 99th percentile {p99:.2e} coin")
    assert median <= MEDIAN_WITH_IMPLIED_FORWARD
    assert p99 <= P99_WITH_IMPLIED_FORWARD
