"""Every rulebook in force over a whole venue, beside the risk step of the same size.

Each rulebook margins the same book: what it prepares by instrument (its own scenarios and tables), then every account.
The risk step is that of ``benchmarks.risk_step``, measured in the same run. Every size runs in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.risk_step import SIZES, peak_resident_bytes, risk_step, say
from benchmarks.synthetic import Size, SyntheticBook, synthetic_book
from margin_tasks.pricing.instruments import NO_EXPIRY, ExerciseStyle, Instruments, Payoff, PremiumStyle, Product
from margin_tasks.pricing.instruments import SettlementStyle as Style
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.revaluation import Contracts, UnitValue
from margin_tasks.pricing.valuation import model_price, value_contracts
from margin_tasks.risk.arrays import risk_arrays
from margin_tasks.rulebooks.exposure import ContractFigures
from margin_tasks.rulebooks.methodology import MarginedMarket, prepare
from margin_tasks.rulebooks.registry import rulebooks_in_force
from margin_tasks.rulebooks.requirement import requirement

VALUED_AT = np.datetime64("2026-02-05T21:30:00", "us")
BUSINESS_DATE = date(2026, 2, 5)
HISTORY_FROM = date(2018, 1, 1)
MEASURED = ("venue", "venue_x5")
# The most traded underlyings get names that every definition states parameters for.
NAMED = ("BTC", "ETH", "XAUX", "EQTX")


def measure(sizes: tuple[Size, ...] = SIZES) -> list[dict[str, Any]]:
    """Return the entries of ``rulebooks`` in build/bench.json, one for each size."""
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (size for size in sizes if size.name in MEASURED):
            path = Path(folder) / f"{size.name}.npz"
            synthetic_book(size).save(path)
            say(f"rulebooks {size.name}: measuring")
            entries.append(_in_fresh_process(size, path))
            path.unlink()
    return entries


def margin_book(loaded: SyntheticBook, *, repetitions: int = 1) -> list[dict[str, Any]]:
    """Margin a book under every rulebook in force; the fastest of the repetitions counts."""
    market = market_of(loaded.contracts)
    accounts = int(loaded.book.account.max()) + 1
    figures = ContractFigures(
        value_usd=market.contract_values.mark_value_usd,
        delta=market.contract_values.delta,
        notional_usd=market.contract_values.notional_usd,
        index_price=market.levels.index_price,
    )
    measured = []
    for rulebook in rulebooks_in_force(BUSINESS_DATE):
        preparing, margining = [], []
        for _ in range(repetitions):
            started = time.perf_counter()
            arrays = None
            if rulebook.is_scanned:
                grids = rulebook.grids(tuple(market.instruments.underlyings))
                arrays = risk_arrays(market.instruments, market.levels, grids=grids)
            prepared = None if rulebook.methodology is None else prepare(rulebook.methodology, market)
            preparing.append(time.perf_counter() - started)
            started = time.perf_counter()
            result = requirement(
                rulebook,
                book=loaded.book,
                gain_units=np.zeros(len(loaded.book), dtype=np.int64),
                instruments=market.instruments,
                figures=figures,
                arrays=arrays,
                account_ids=[str(number) for number in range(accounts)],
                is_conservative=np.zeros(accounts, dtype=bool),
                prepared=prepared,
            )
            margining.append(time.perf_counter() - started)
        measured.append(
            {
                "rulebook_id": rulebook.rulebook_id,
                "seconds_preparing": min(preparing),
                "seconds_margining": min(margining),
                "total_initial_margin": float(result.initial_units.sum(dtype=np.float64)) / 1e8,
            }
        )
        say(f"  {rulebook.rulebook_id}: {min(preparing):.2f} s by instrument, {min(margining):.2f} s by account")
    return measured


def market_of(contracts: Contracts) -> MarginedMarket:
    """The synthetic contracts as a venue lists them, with marks from the model and a history of closes."""
    is_option = contracts.unit_value == UnitValue.EUROPEAN
    is_coin = np.where(is_option, contracts.is_in_coin, contracts.unit_value == UnitValue.RECIPROCAL).astype(bool)
    is_dated = contracts.year_fraction > 0.0
    product = np.where(is_option, Product.OPTION, np.where(is_dated, Product.FUTURE, Product.PERPETUAL))
    names = [f"U{number:03d}" for number in range(int(contracts.factor.max()) + 1)]
    names[: len(NAMED)] = NAMED[: len(names)]
    underlyings = np.array(names, dtype=object)
    seconds = np.rint(contracts.year_fraction * 365.0 * 86_400.0).astype("timedelta64[s]")
    size = len(contracts)
    none = np.zeros(size)
    instruments = Instruments(
        instrument_id=contracts.instrument_id,
        product=product.astype(np.int8),
        style=np.where(is_coin, Style.INVERSE, Style.LINEAR).astype(np.int8),
        exercise=np.full(size, ExerciseStyle.EUROPEAN, dtype=np.int8),
        payoff=np.full(size, Payoff.VANILLA, dtype=np.int8),
        premium=np.full(size, PremiumStyle.UPFRONT, dtype=np.int8),
        underlyings=underlyings,
        underlying_index=contracts.factor,
        settlement_currency=np.where(is_coin, underlyings[contracts.factor], "USD").astype(object),
        multiplier=contracts.multiplier,
        strike=np.where(is_option, contracts.strike, 1.0),
        is_call=contracts.right > 0.0,
        is_on_spot=np.zeros(size, dtype=bool),
        is_physical=np.zeros(size, dtype=bool),
        expiry_at=np.where(is_dated, VALUED_AT + seconds.astype("timedelta64[us]"), NO_EXPIRY),
        year_fraction=contracts.year_fraction,
        averaging_seconds=none,
    )
    spot = contracts.level / np.exp(0.05 * contracts.year_fraction)
    levels = MarketLevels(
        mark_price=contracts.level,
        forward_price=contracts.level,
        volatility=contracts.volatility,
        index_price=spot,
        settlement_price=np.where(is_coin, spot, 1.0),
        discount_rate=none,
        dividend_yield=none,
    )
    levels = replace(levels, mark_price=np.where(is_option, model_price(instruments, levels), contracts.level))
    return MarginedMarket(
        instruments=instruments,
        levels=levels,
        contract_values=value_contracts(instruments, levels),
        valued_at=VALUED_AT,
        closes=_closes(underlyings, last=spot[np.searchsorted(contracts.factor, np.arange(len(underlyings)))]),
    )


def _closes(underlyings: np.ndarray, *, last: np.ndarray) -> pd.DataFrame:
    """Seeded daily closes that share a market factor and end at the last prices."""
    days = np.arange(np.datetime64(HISTORY_FROM), VALUED_AT.astype("datetime64[D]"))
    random = np.random.default_rng(11)
    common = random.standard_t(4.0, len(days))[:, None]
    returns = 0.02 * (0.7 * common + 0.7 * random.standard_t(4.0, (len(days), len(underlyings))))
    path = np.exp(np.cumsum(np.clip(returns, -0.4, 0.4), axis=0))
    return pd.DataFrame(
        {
            "asset": np.tile(underlyings, len(days)),
            "price_date": np.repeat(days.astype(object), len(underlyings)),
            "close_price": (path / path[-1] * last).ravel(),
        }
    )


def _in_fresh_process(size: Size, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.rulebooks", "--sized", json.dumps(asdict(size)), "--book", str(path)]
    answer = subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    return dict(json.loads(answer.stdout))


def _measured(size: Size, path: Path) -> dict[str, Any]:
    loaded = SyntheticBook.load(path)
    risk_step(loaded)  # compiles
    step = []
    for _ in range(3):
        started = time.perf_counter()
        risk_step(loaded)
        step.append(time.perf_counter() - started)
    margin_book(synthetic_book(Size(**{**asdict(size), "instruments": 500, "accounts": 50, "positions": 2_000})))
    rulebooks = margin_book(loaded, repetitions=2 if size.name == "venue" else 1)
    seconds = sum(entry["seconds_preparing"] + entry["seconds_margining"] for entry in rulebooks)
    return {
        "size": size.name,
        "instruments": size.instruments,
        "accounts": size.accounts,
        "positions": size.positions,
        "rulebooks": rulebooks,
        "seconds": seconds,
        "seconds_risk_step": sorted(step)[1],
        "ratio_risk_step": seconds / sorted(step)[1],
        "is_met": seconds <= sorted(step)[1],
        "peak_bytes": peak_resident_bytes(),
    }


def table(entries: list[dict[str, Any]]) -> str:
    """The entries in lines for a person."""
    lines = []
    for entry in entries:
        step = entry["seconds_risk_step"]
        lines.append(
            f"{entry['size']}: {len(entry['rulebooks'])} rulebooks over {entry['accounts']:,} accounts and "
            f"{entry['positions']:,} positions: {entry['seconds']:.1f} s, peak {entry['peak_bytes'] / 2**20:.0f} MiB; "
            f"{entry['ratio_risk_step']:.1f} times the risk step, target 1 {'met' if entry['is_met'] else 'missed'}"
        )
        for rulebook in sorted(entry["rulebooks"], key=lambda row: str(row["rulebook_id"])):
            by_instrument, by_account = rulebook["seconds_preparing"], rulebook["seconds_margining"]
            lines.append(
                f"  {rulebook['rulebook_id']:<20}{by_instrument:>8.2f} s by instrument{by_account:>8.2f} s by account"
                f"{(by_instrument + by_account) / step:>8.2f} of the risk step"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=MEASURED, help="one size only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--sized", help=argparse.SUPPRESS)
    parser.add_argument("--book", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.book:
        print(json.dumps(_measured(Size(**json.loads(arguments.sized)), arguments.book)))
        return
    entries = measure(tuple(size for size in SIZES if arguments.size in (None, size.name)))
    print(json.dumps(entries, indent=2) if arguments.json else table(entries))


if __name__ == "__main__":
    main()
