"""Restate the market of the sample days from the real data set into the small files under ``examples/``.

Run by a developer who holds the data set; nothing else in the project reads it:

    MARGIN_DATA_DIR=../shared python examples/restate_market.py

Reads the ~21:30 UTC option chains (A1), perpetual and futures marks (C1), daily closes (B1, B2) and funding (B1, C5)
named in ``examples/README.md``. Writes ``market/<date>/{index,surface,perpetuals,listing}.csv``, ``price_history.csv``,
``market/fit_errors.csv`` and the fit table of ``README.md``. The same data give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from margin_tasks.market.volatility_surface import (
    SviSlice,
    arbitrage_grid,
    butterfly_function,
    calendar_gap,
    fit_svi,
    slice_volatility,
)
from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.sample.market import listed_strikes

EXAMPLES = Path(__file__).resolve().parent
DATES = (date(2026, 2, 3), date(2026, 2, 4), date(2026, 2, 5))
UNDERLYINGS = ("BTC", "ETH")
CUTOFF_TIME = "21:30:00"
HISTORY_START = date(2015, 1, 1)
SECONDS_PER_YEAR = 365 * 86_400
# Share of the total vega that is spread evenly over the strikes, so that wings without vega still shape the slice.
EVEN_WEIGHT = 0.02
# USD per euro, for cash collateral in euros: stated, not observed.
EURO_USD = {date(2026, 2, 3): "1.1790", date(2026, 2, 4): "1.1805", date(2026, 2, 5): "1.1820"}
# Out-of-the-money options worth at least one price step of the venue: the error in volatility is stated for these.
PRICE_STEP_COIN = 0.0001
TABLE_START = "<!-- fit table: written by restate_market.py -->"
TABLE_END = "<!-- end of fit table -->"

OPTIONS = "A1_deribit_options_stress_2026-01-28_2026-02-12.parquet"
PERPETUALS = "C1_deribit_perp_6h_2025-12-30_2026-04-15.parquet"
FUTURES = "C1_deribit_term_futures_6h_2025-12-30_2026-04-15.parquet"
BTC_DAILY = "B1_btc_daily_funding_vix_dxy_2015_2026_MIT.csv.gz"
SPOT_DAILY = "B2_binance_spot_daily_2017-08_2026-03.parquet"
FUNDING = "C5_binance_funding_40sym_2026-01_2026-03.csv.gz"
ETH_HISTORY_REPOSITORY = "rongyouwow-svg/v3-trading-system"

# USDC-linear contracts are not in the data set: these listings are the sample's own.
LINEAR_OPTION_STRIKES = {
    ("BTC", "2026-02-13T08:00:00Z"): "60000:96000:2000",
    ("BTC", "2026-02-27T08:00:00Z"): "40000:60000:5000 60000:100000:2000",
    ("BTC", "2026-03-27T08:00:00Z"): "40000:140000:5000",
    ("ETH", "2026-02-13T08:00:00Z"): "1600:3200:100",
    ("ETH", "2026-02-27T08:00:00Z"): "1300:4000:100",
    ("ETH", "2026-03-27T08:00:00Z"): "1000:2000:200 2000:4400:100",
}
LINEAR_FUTURES = ("2026-02-27T08:00:00Z", "2026-03-27T08:00:00Z")


def main() -> None:
    """Read the data set, fit, write every file and print where the fit stands."""
    market = Path(os.environ.get("MARGIN_DATA_DIR", EXAMPLES.parent.parent / "shared")) / "market"
    if not market.is_dir():
        raise SystemExit(f"no data set at {market}: set MARGIN_DATA_DIR to the folder that holds market/")
    errors = [row for day in DATES for row in restate_day(market, day)]
    write(EXAMPLES / "market" / "fit_errors.csv", FIT_COLUMNS, errors)
    write_fit_table(EXAMPLES / "README.md", errors)
    write(EXAMPLES / "price_history.csv", ("price_date", "BTC", "ETH"), price_history(market))


def restate_day(market: Path, day: date) -> list[dict[str, str]]:
    """Write the four market files of one day and return its rows of ``fit_errors.csv``."""
    chain = read_chain(market, day)
    taken_at = chain["snapshot_ts"].iloc[0]
    folder = EXAMPLES / "market" / day.isoformat()
    index = {name: round(float(rows["index_price"].median()), 2) for name, rows in chain.groupby("currency")}
    source = f"median of the index over the option snapshot of {taken_at:%H:%M:%S} UTC"
    write(
        folder / "index.csv",
        ("asset", "index_price", "price_source"),
        [{"asset": name, "index_price": text(index[name]), "price_source": source} for name in UNDERLYINGS]
        + [{"asset": name, "index_price": "1.0", "price_source": "stated"} for name in ("USDC", "USD")]
        + [{"asset": "EUR", "index_price": EURO_USD[day], "price_source": "stated"}],
    )
    slices = {name: fit_underlying(chain[chain["currency"] == name], day) for name in UNDERLYINGS}
    write(
        folder / "surface.csv",
        SURFACE_COLUMNS,
        [surface_row(name, svi) for name in UNDERLYINGS for svi in slices[name]],
    )
    write(folder / "perpetuals.csv", PERPETUAL_COLUMNS, perpetuals(market, day, taken_at))
    write(folder / "listing.csv", LISTING_COLUMNS, listing(market, chain, taken_at))
    return [fit_error(name, day, chain[chain["currency"] == name], slices[name]) for name in UNDERLYINGS]


SURFACE_COLUMNS = ("underlying", "expiry_at", "forward_price", "a", "b", "rho", "m", "sigma")
PERPETUAL_COLUMNS = ("underlying", "mark_price", "funding_rate", "price_source", "funding_source")
LISTING_COLUMNS = ("product_type", "settlement_style", "underlying", "expiry_at", "strikes", "listing_source")
FIT_COLUMNS = (
    "business_date", "underlying", "options", "priced_options",
    "median_volatility_error", "p95_volatility_error", "worst_volatility_error", "worst_volatility_instrument",
    "median_price_error", "p95_price_error", "worst_price_error", "worst_price_instrument", "share_inside_quotes",
    "median_price_error_unconstrained", "worst_price_error_unconstrained",
    "smallest_butterfly", "smallest_calendar_gap",
)  # fmt: skip


def read_chain(market: Path, day: date) -> pd.DataFrame:
    """Option rows of the snapshot nearest to the day's cut-off."""
    chain = pd.read_parquet(market / OPTIONS)
    cutoff = pd.Timestamp(f"{day.isoformat()} {CUTOFF_TIME}")
    stamps = chain["snapshot_ts"].drop_duplicates()
    nearest = stamps.loc[(stamps - cutoff).abs().idxmin()]
    if abs(nearest - cutoff) > pd.Timedelta(minutes=15):
        raise SystemExit(f"no option snapshot within 15 minutes of {cutoff}")
    return chain[chain["snapshot_ts"] == nearest].reset_index(drop=True)


def fit_underlying(chain: pd.DataFrame, day: date, *, is_arbitrage_free: bool = True) -> list[SviSlice]:
    """One slice for each expiry, shortest first, each kept above the one before."""
    cutoff = pd.Timestamp(f"{day.isoformat()} {CUTOFF_TIME}")
    log_moneyness = np.log(chain["strike"] / chain["underlying_price"])
    lowest, highest = float(log_moneyness.min()), float(log_moneyness.max())
    slices: list[SviSlice] = []
    for expiry, rows in chain.groupby("expiry_ts", sort=True):
        quotes = rows.drop_duplicates("strike").sort_values("strike")
        year_fraction = (expiry - cutoff).total_seconds() / SECONDS_PER_YEAR
        vega = black76_greeks(
            forward=quotes["underlying_price"], strike=quotes["strike"], volatility=quotes["mark_iv"],
            year_fraction=year_fraction, is_call=True,
        ).vega  # fmt: skip
        weight = vega / vega.sum() + EVEN_WEIGHT / len(quotes)
        at_the_money = float(quotes["mark_iv"].iloc[(quotes["strike"] - quotes["underlying_price"]).abs().argmin()])
        svi = fit_svi(
            log_moneyness=np.log(quotes["strike"] / quotes["underlying_price"]),
            volatility=quotes["mark_iv"],
            weight=weight,
            expiry_at=expiry.to_pydatetime(),
            forward_price=round(float(rows["underlying_price"].median()), 2),
            year_fraction=year_fraction,
            grid=arbitrage_grid(lowest=lowest, highest=highest, standard_deviation=at_the_money * year_fraction**0.5),
            shorter=slices[-1] if slices and is_arbitrage_free else None,
            is_arbitrage_free=is_arbitrage_free,
        )
        slices.append(rounded(svi))
    if is_arbitrage_free:
        refuse_arbitrage(slices, lowest=lowest, highest=highest)
    return slices


def rounded(svi: SviSlice) -> SviSlice:
    """The slice as it is stored: parameters to ten significant digits."""
    return SviSlice(
        expiry_at=svi.expiry_at, forward_price=svi.forward_price, year_fraction=svi.year_fraction,
        a=float(text(svi.a)), b=float(text(svi.b)), rho=float(text(svi.rho)), m=float(text(svi.m)),
        sigma=float(text(svi.sigma)),
    )  # fmt: skip


def refuse_arbitrage(slices: Sequence[SviSlice], *, lowest: float, highest: float) -> None:
    """Stop when a stored slice allows butterfly or calendar arbitrage anywhere on the listed range."""
    butterfly, gap = smallest_margins(slices, lowest=lowest, highest=highest)
    if butterfly < 0.0 or gap < 0.0:
        raise SystemExit(f"the fitted surface is not free of arbitrage: g >= {butterfly:.2g}, calendar gap {gap:.2g}")


def smallest_margins(slices: Sequence[SviSlice], *, lowest: float, highest: float) -> tuple[float, float]:
    """Smallest g(k) of any slice, and smallest gap of total variance between neighbours relative to the shorter's."""
    butterfly, gap = np.inf, np.inf
    for position, svi in enumerate(slices):
        deviation = float(slice_volatility(svi, svi.forward_price)) * svi.year_fraction**0.5
        grid = arbitrage_grid(lowest=lowest, highest=highest, standard_deviation=deviation)
        butterfly = min(butterfly, float(butterfly_function(grid, svi).min()))
        if position:
            gap = min(gap, float(calendar_gap(grid, shorter=slices[position - 1], longer=svi).min()))
    return butterfly, gap


def price_errors(chain: pd.DataFrame, slices: Iterable[SviSlice], day: date) -> pd.DataFrame:
    """Model against mark for every option: ``volatility_error`` (1 = 100 %) and ``price_error`` (coin), absolute.

    ``is_inside`` says whether the model price lies between the real bid and ask, where both exist (``is_quoted``).

    Each option is revalued on the forward that its own mark was made with, because the chain was polled over a minute
    of a fast market; the error is that of the surface, not of the polling.
    """
    cutoff = pd.Timestamp(f"{day.isoformat()} {CUTOFF_TIME}")
    parts = []
    for svi in slices:
        rows = chain[chain["expiry_ts"] == pd.Timestamp(svi.expiry_at)]
        strike = rows["strike"].to_numpy()
        forward = rows["underlying_price"].to_numpy()
        volatility = slice_volatility(svi, strike * svi.forward_price / forward)
        since_cutoff = (rows["snapshot_ts"] - cutoff).dt.total_seconds().to_numpy()
        price = black76_price(
            forward=forward, strike=strike, volatility=volatility,
            year_fraction=svi.year_fraction - since_cutoff / SECONDS_PER_YEAR,
            is_call=(rows["option_type"] == "call").to_numpy(),
        ) / forward  # fmt: skip
        parts.append(
            pd.DataFrame(
                {
                    "instrument_id": rows["instrument_name"],
                    "mark_price": rows["mark_price"],
                    "is_out_of_the_money": np.where(rows["option_type"] == "call", strike >= forward, strike < forward),
                    "is_quoted": (rows["bid_price"].notna() & rows["ask_price"].notna()).to_numpy(),
                    "is_inside": ((price >= rows["bid_price"]) & (price <= rows["ask_price"])).to_numpy(),
                    "volatility_error": np.abs(volatility - rows["mark_iv"].to_numpy()),
                    "price_error": np.abs(price - rows["mark_price"].to_numpy()),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def fit_error(underlying: str, day: date, chain: pd.DataFrame, slices: Sequence[SviSlice]) -> dict[str, str]:
    """One row of ``fit_errors.csv``."""
    errors = price_errors(chain, slices, day)
    priced = errors[errors["is_out_of_the_money"] & (errors["mark_price"] >= PRICE_STEP_COIN)]
    volatility = priced["volatility_error"]
    free = price_errors(chain, fit_underlying(chain, day, is_arbitrage_free=False), day)["price_error"]
    log_moneyness = np.log(chain["strike"] / chain["underlying_price"])
    butterfly, gap = smallest_margins(slices, lowest=float(log_moneyness.min()), highest=float(log_moneyness.max()))
    price = errors["price_error"]
    return {
        "business_date": day.isoformat(), "underlying": underlying,
        "options": str(len(errors)), "priced_options": str(len(priced)),
        "median_volatility_error": f"{volatility.median():.4f}",
        "p95_volatility_error": f"{volatility.quantile(0.95):.4f}",
        "worst_volatility_error": f"{volatility.max():.4f}",
        "median_price_error": f"{price.median():.6f}", "p95_price_error": f"{price.quantile(0.95):.6f}",
        "worst_price_error": f"{price.max():.6f}",
        "share_inside_quotes": f"{errors.loc[errors['is_quoted'], 'is_inside'].mean():.3f}",
        "worst_volatility_instrument": str(priced["instrument_id"][volatility.idxmax()]),
        "worst_price_instrument": str(errors["instrument_id"][price.idxmax()]),
        "median_price_error_unconstrained": f"{free.median():.6f}",
        "worst_price_error_unconstrained": f"{free.max():.6f}",
        "smallest_butterfly": f"{butterfly:.2g}", "smallest_calendar_gap": f"{gap:.2g}",
    }  # fmt: skip


def surface_row(underlying: str, svi: SviSlice) -> dict[str, str]:
    """One row of ``surface.csv``."""
    return {
        "underlying": underlying, "expiry_at": instant(svi.expiry_at), "forward_price": text(svi.forward_price),
        "a": text(svi.a), "b": text(svi.b), "rho": text(svi.rho), "m": text(svi.m), "sigma": text(svi.sigma),
    }  # fmt: skip


def perpetuals(market: Path, day: date, taken_at: pd.Timestamp) -> list[dict[str, str]]:
    """Mark of the inverse perpetual at the snapshot, and the day's funding."""
    candles = pd.read_parquet(market / PERPETUALS)
    candles = candles[(candles["timestamp"] - taken_at).abs() < pd.Timedelta(minutes=5)].set_index("currency")
    btc = pd.read_csv(market / BTC_DAILY).set_index("date")["funding_mean"]
    eth = pd.read_csv(market / FUNDING, parse_dates=["ts"])
    eth_day = eth[(eth["symbol"] == "ETHUSDT") & (eth["ts"].dt.date == day)]["funding_rate"]
    if len(eth_day) != 3:
        raise SystemExit(f"{day}: expected three ETH funding payments, found {len(eth_day)}")
    funding = {
        "BTC": (3.0 * float(btc[day.isoformat()]), "B1: three times the daily mean of the 8-hour payments"),
        "ETH": (float(eth_day.sum()), "C5: sum of the day's three 8-hour payments"),
    }
    return [
        {
            "underlying": name,
            "mark_price": text(float(candles.loc[name, "candle_close"])),
            "funding_rate": f"{funding[name][0]:.8f}",
            "price_source": "C1: close of the one-minute candle at the snapshot",
            "funding_source": funding[name][1],
        }
        for name in UNDERLYINGS
    ]


def listing(market: Path, chain: pd.DataFrame, taken_at: pd.Timestamp) -> list[dict[str, str]]:
    """Every listed expiry: futures without strikes, options with strikes as from:to:step segments."""
    terms = pd.read_parquet(market / FUTURES)
    terms = terms[(terms["timestamp"] - taken_at).abs() < pd.Timedelta(minutes=5)]
    dated = set(terms["futures_instrument_name"])
    rows = []
    for name in UNDERLYINGS:
        expiries = chain[chain["currency"] == name].groupby("expiry_ts", sort=True)
        for expiry, options in expiries:
            at = instant(expiry)
            if f"{name}-{expiry.day}{expiry:%b%y}".upper() in dated:
                rows.append(listing_row("future", "inverse", name, at, "", "C1"))
            segments = strike_segments(sorted(set(options["strike"])))
            for right, rows_of_right in options.groupby("option_type"):
                if sorted(rows_of_right["strike"]) != list(listed_strikes(segments)):
                    raise SystemExit(f"{name} {at}: the listing rule does not give the listed {right}s")
            rows.append(listing_row("option", "inverse", name, at, segments, "A1"))
        listed = {instant(expiry) for expiry, _ in expiries}
        rows.extend(listing_row("future", "linear", name, at, "", "sample") for at in LINEAR_FUTURES if at in listed)
        rows.extend(
            listing_row("option", "linear", name, at, strikes, "sample")
            for (underlying, at), strikes in LINEAR_OPTION_STRIKES.items()
            if underlying == name and at in listed
        )
    return rows


def listing_row(
    product_type: str, settlement_style: str, underlying: str, expiry_at: str, strikes: str, listing_source: str
) -> dict[str, str]:
    """One row of ``listing.csv``."""
    return {
        "product_type": product_type, "settlement_style": settlement_style, "underlying": underlying,
        "expiry_at": expiry_at, "strikes": strikes, "listing_source": listing_source,
    }  # fmt: skip


def strike_segments(strikes: Sequence[float]) -> str:
    """Sorted strikes as evenly spaced runs ``from:to:step``, the inverse of ``listed_strikes``.

    A run starts where the one before ended.
    """
    whole = [int(strike) for strike in strikes]
    segments, start = [], 0
    while start < len(whole) - 1:
        step, end = whole[start + 1] - whole[start], start + 1
        while end < len(whole) - 1 and whole[end + 1] - whole[end] == step:
            end += 1
        segments.append(f"{whole[start]}:{whole[end]}:{step}")
        start = end
    return " ".join(segments)


def price_history(market: Path) -> list[dict[str, str]]:
    """Daily closes: BTC of B1, ETH of the MIT part of B2, up to the last sample day."""
    btc = pd.read_csv(market / BTC_DAILY, parse_dates=["date"]).set_index("date")["price"]
    spot = pd.read_parquet(market / SPOT_DAILY)
    eth = spot[(spot["symbol"] == "ETHUSDT") & (spot["source_repo"] == ETH_HISTORY_REPOSITORY)].set_index("ts")["close"]
    closes = pd.DataFrame({"BTC": btc, "ETH": eth}).sort_index()
    closes = closes[(closes.index >= pd.Timestamp(HISTORY_START)) & (closes.index <= pd.Timestamp(DATES[-1]))]
    return [
        {
            "price_date": f"{day:%Y-%m-%d}",
            "BTC": "" if np.isnan(row.BTC) else text(round(row.BTC, 2)),
            "ETH": "" if np.isnan(row.ETH) else text(round(row.ETH, 2)),
        }
        for day, row in zip(closes.index, closes.itertuples(index=False), strict=True)
    ]


def write_fit_table(readme: Path, errors: Sequence[dict[str, str]]) -> None:
    """Replace the fit table between its two markers."""
    lines = [
        "| day | underlying | IV error, points: median | 95 % | worst | at "
        "| price error, coin: median | 95 % | worst | at | inside real bid-ask | without penalty: median | worst |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in errors:
        points = [f"{100.0 * float(row[f'{name}_volatility_error']):.2f}" for name in ("median", "p95", "worst")]
        cells = [
            row["business_date"], row["underlying"], *points, row["worst_volatility_instrument"],
            row["median_price_error"], row["p95_price_error"], row["worst_price_error"], row["worst_price_instrument"],
            f"{100.0 * float(row['share_inside_quotes']):.1f} %",
            row["median_price_error_unconstrained"], row["worst_price_error_unconstrained"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    before, _, rest = readme.read_text(encoding="utf-8").partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    readme.write_text(before + "\n".join([TABLE_START, *lines, TABLE_END]) + after, encoding="utf-8")


def write(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Write rows as CSV with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=list(columns))
    path.write_text(frame.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
    print(f"{path.relative_to(EXAMPLES)}: {len(frame)} rows")


def text(value: float) -> str:
    """A number as text: ten significant digits, no exponent noise."""
    return repr(float(f"{value:.10g}"))


def instant(value: datetime | pd.Timestamp) -> str:
    """A naive UTC instant as ISO 8601."""
    return value.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    main()
