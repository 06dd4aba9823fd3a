"""The restated market of one sample day: index levels, surfaces, perpetuals, tokens and the list of contracts."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

import pandas as pd

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.market.asset_policy import asset_price_policies_in_force, policy_prices
from margin_tasks.market.volatility_surface import SviSlice
from margin_tasks.sources import SourceError

EXAMPLES_FOLDER = Path(__file__).resolve().parents[2] / "examples"
OPENING_DATE = date(2026, 2, 3)
BUSINESS_DATES = (date(2026, 2, 4), date(2026, 2, 5))
CUTOFF_TIME = time(21, 30)
SECONDS_PER_YEAR = 365 * 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Contracts of one underlying, style and expiry: one future, or calls and puts on every strike (USD)."""

    product_type: str
    settlement_style: str
    underlying: str
    expiry_at: datetime
    strikes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A tokenised asset on one day; prices USD, instants naive UTC, rates annual and continuous.

    ``reference_price`` of ``reference_asset`` is what its price policy starts from, ``market_price`` what the token
    fetches. ``volatility`` is that of every option on it; NaN, like the rates, where there is none.
    """

    market_price: float
    reference_asset: str
    reference_price: float
    published_at: datetime
    volatility: float
    discount_rate: float
    dividend_yield: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleMarket:
    """Levels of one day at its cut-off.

    ``index_price`` is USD by asset, of ``tokens`` the price of their policy; ``perpetual_mark`` USD and
    ``funding_rate`` fraction per day by underlying; ``slices`` by underlying and expiry (naive UTC).
    """

    business_date: date
    cutoff_at: datetime
    index_price: Mapping[str, float]
    perpetual_mark: Mapping[str, float]
    funding_rate: Mapping[str, float]
    slices: Mapping[tuple[str, datetime], SviSlice]
    listings: tuple[Listing, ...]
    tokens: Mapping[str, Token]


def load_market(business_date: date, *, examples: Path = EXAMPLES_FOLDER) -> SampleMarket:
    """Read the restated market of a day from ``examples/market/<date>``.

    Raises:
        SourceError: The day is not part of the sample.
    """
    folder = examples / "market" / business_date.isoformat()
    if not folder.is_dir():
        raise SourceError(
            FailureReason.SOURCE_UNREACHABLE,
            f"there is no market of {business_date.isoformat()} at {folder}: restore examples/ from the repository",
        )
    perpetuals = read_rows(folder / "perpetuals.csv")
    cutoff_at = datetime.combine(business_date, CUTOFF_TIME)
    slices = [
        (
            row["underlying"],
            SviSlice(
                expiry_at=_instant(row["expiry_at"]),
                forward_price=float(row["forward_price"]),
                year_fraction=(_instant(row["expiry_at"]) - cutoff_at).total_seconds() / SECONDS_PER_YEAR,
                a=float(row["a"]),
                b=float(row["b"]),
                rho=float(row["rho"]),
                m=float(row["m"]),
                sigma=float(row["sigma"]),
            ),
        )
        for row in read_rows(folder / "surface.csv")
    ]
    listings = tuple(
        Listing(
            product_type=row["product_type"],
            settlement_style=row["settlement_style"],
            underlying=row["underlying"],
            expiry_at=_instant(row["expiry_at"]),
            strikes=listed_strikes(row["strikes"]),
        )
        for row in read_rows(folder / "listing.csv")
    )
    tokens = {
        row["asset"]: Token(
            market_price=float(row["market_price"]),
            reference_asset=row["reference_asset"],
            reference_price=float(row["reference_price"]),
            published_at=_instant(row["published_at"]),
            volatility=float(row["volatility"] or "nan"),
            discount_rate=float(row["discount_rate"] or "nan"),
            dividend_yield=float(row["dividend_yield"] or "nan"),
        )
        for row in read_rows(folder / "tokens.csv")
    }
    index_price = {row["asset"]: float(row["index_price"]) for row in read_rows(folder / "index.csv")}
    return SampleMarket(
        business_date=business_date,
        cutoff_at=cutoff_at,
        index_price=index_price | _token_prices(tokens, coins=index_price, cutoff_at=cutoff_at),
        perpetual_mark={row["underlying"]: float(row["mark_price"]) for row in perpetuals},
        funding_rate={row["underlying"]: float(row["funding_rate"]) for row in perpetuals},
        slices={(underlying, svi.expiry_at): svi for underlying, svi in slices},
        listings=listings,
        tokens=tokens,
    )


def listed_strikes(segments: str) -> tuple[int, ...]:
    """Strikes of a listing rule: evenly spaced runs ``from:to:step``, both ends included, separated by blanks."""
    strikes: set[int] = set()
    for segment in segments.split():
        first, last, step = (int(part) for part in segment.split(":"))
        strikes.update(range(first, last + 1, step))
    return tuple(sorted(strikes))


def _token_prices(tokens: Mapping[str, Token], *, coins: Mapping[str, float], cutoff_at: datetime) -> dict[str, float]:
    """Price of each token by its policy in force."""
    policies = asset_price_policies_in_force(cutoff_at.date())
    venues = max((policy.minimum_venues for policy in policies), default=0)
    priced = policy_prices(
        pd.DataFrame(
            [
                (asset, price, venues, False, pd.Timestamp(cutoff_at))
                for asset, price in {**coins, **{name: token.market_price for name, token in tokens.items()}}.items()
            ],
            columns=["asset", "index_price", "venue_count", "is_fallback", "observed_at"],
        ),
        references=pd.DataFrame(
            [
                (token.reference_asset, token.reference_price, pd.Timestamp(token.published_at))
                for token in tokens.values()
            ],
            columns=["asset", "index_price", "observed_at"],
        ),
        cutoff_at=cutoff_at,
        policies=policies,
    )
    prices = dict(zip(priced["asset"].tolist(), priced["index_price"].tolist(), strict=True))
    return {asset: prices[asset] for asset in tokens}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file of the sample, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix("Z"))
