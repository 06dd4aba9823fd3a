"""A small option market on one underlying, and books in it, for the tests of the two option methodologies."""

from __future__ import annotations

from typing import Any

import numpy as np

from margin_tasks.rulebooks.option_standard import market as standard
from margin_tasks.rulebooks.pmrm import market as portfolio

SPOT = 50_000.0
# Half an hour, a week, a quarter: the first one's settlement average is already half fixed.
SECONDS = np.array([900.0, 7.0 * 86_400.0, 90.0 * 86_400.0])
FORWARD = np.array([50_001.0, 50_080.0, 51_000.0])
STRIKES = np.array([40_000.0, 50_000.0, 60_000.0])
OPTIONS = 2 * len(SECONDS) * len(STRIKES)
ASSETS = ("wBTC", "USDT")

_EXPIRY, _STRIKE, _IS_CALL = (
    axis.reshape(-1) for axis in np.meshgrid(np.arange(len(SECONDS)), STRIKES, [True, False], indexing="ij")
)
_NAMES = np.array([f"option {number}" for number in range(OPTIONS)], dtype=object)


def portfolio_market(**changes: Any) -> portfolio.Market:
    """Market of one underlying for portfolio margin; ``changes`` replace what it states."""
    expiries = portfolio.Expiries(
        seconds_to_expiry=SECONDS,
        forward=FORWARD,
        fixed_share=portfolio.settlement_fixed_share(SECONDS),
        rate=np.array([0.04, 0.05, -0.01]),
        confidence=np.ones(3),
    )
    collateral = portfolio.CollateralAssets(
        asset_id=np.array(ASSETS, dtype=object),
        price=np.array([SPOT, 1.0]),
        confidence=np.ones(2),
        is_risk_cancelling=np.array([True, False]),
        maintenance_haircut=np.array([0.1, 0.02]),
        initial_haircut_extra=np.array([0.05, 0.01]),
    )
    options = portfolio.Options(
        instrument_id=_NAMES, expiry=_EXPIRY, strike=_STRIKE, is_call=_IS_CALL, volatility=np.full(OPTIONS, 0.6)
    )
    stated = {
        "underlying": "BTC",
        "spot": SPOT,
        "spot_confidence": 1.0,
        "stable_price": 1.0,
        "perpetual_price": SPOT,
        "perpetual_confidence": 1.0,
        "expiries": expiries,
        "options": options,
        "collateral": collateral,
    }
    return portfolio.Market(**stated | changes)


def portfolio_books(
    holdings: list[tuple[int, int, float]],
    *,
    accounts: int = 1,
    perpetual: Any = 0.0,
    assets: Any = (),
    cash: Any = 0.0,
) -> portfolio.Books:
    """Books from rows of account, option and quantity; ``assets``: the same of collateral."""
    options = np.array(holdings, dtype=np.float64).reshape(-1, 3)
    held = np.array(assets, dtype=np.float64).reshape(-1, 3)
    return portfolio.Books(
        account_id=np.array([f"account {number}" for number in range(accounts)], dtype=object),
        cash=np.full(accounts, cash, dtype=np.float64),
        perpetual_quantity=np.full(accounts, perpetual, dtype=np.float64),
        perpetual_gain=np.zeros(accounts),
        option_account=options[:, 0].astype(np.int64),
        option=options[:, 1].astype(np.int64),
        option_quantity=options[:, 2],
        collateral_account=held[:, 0].astype(np.int64),
        collateral=held[:, 1].astype(np.int64),
        collateral_quantity=held[:, 2],
    )


def standard_markets(**changes: Any) -> standard.Markets:
    """The same market for standard margin, an option's mark being its distance in the money and 1,000 USD."""
    distance = np.where(_IS_CALL, FORWARD[_EXPIRY] - _STRIKE, _STRIKE - FORWARD[_EXPIRY])
    stated = {
        "underlying": np.array(["BTC"], dtype=object),
        "spot": np.array([SPOT]),
        "spot_confidence": np.ones(1),
        "perpetual_price": np.array([SPOT]),
        "perpetual_confidence": np.ones(1),
        "expiry_market": np.zeros(len(SECONDS), dtype=np.int64),
        "forward": FORWARD,
        "expiry_confidence": np.ones(len(SECONDS)),
        "instrument_id": _NAMES,
        "option_expiry": _EXPIRY,
        "strike": _STRIKE,
        "is_call": _IS_CALL,
        "mark_price": np.maximum(distance, 0.0) + 1_000.0,
    }
    return standard.Markets(**stated | changes)


def standard_books(
    holdings: list[tuple[int, int, float]], *, accounts: int = 1, perpetual: float = 0.0, base: float = 0.0
) -> standard.Books:
    """Books from rows of account, option and quantity."""
    options = np.array(holdings, dtype=np.float64).reshape(-1, 3)
    return standard.Books(
        account_id=np.array([f"account {number}" for number in range(accounts)], dtype=object),
        cash=np.zeros(accounts),
        perpetual_quantity=np.full((accounts, 1), perpetual),
        perpetual_gain=np.zeros((accounts, 1)),
        base_quantity=np.full((accounts, 1), base),
        option_account=options[:, 0].astype(np.int64),
        option=options[:, 1].astype(np.int64),
        option_quantity=options[:, 2],
    )
