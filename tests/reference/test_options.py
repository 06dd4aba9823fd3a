"""Option values and greeks that textbooks and other engines published, and a venue's reading of its SVI surface."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from margin_tasks.market.volatility_surface import clamped_log_moneyness, venue_svi_volatility
from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.pricing.black_scholes import black_scholes_greeks, black_scholes_price
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import UnitValue, unit_values
from tests.reference.reading import Case, cases
from tests.revaluing import contracts, moves

# How the vollib table names the greeks, behind C for the call and P for the put.
VOLLIB_GREEKS = {"D": "delta", "G": "gamma", "T": "theta_per_year", "V": "vega", "R": "rho"}


def haug_point(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "spot": row["spot"],
        "strike": row["strike"],
        "volatility": row["vol"],
        "year_fraction": row["t_years"],
        "rate": row["rate"],
        "dividend_yield": row["dividend_yield"],
        "is_call": row["type"] == "call",
    }


def describe_haug(row: dict[str, Any]) -> str:
    return f"{row.get('greek', 'value')}_{row['type']}_K{row['strike']}_S{row['spot']}_T{row['t_years']:.4g}"


def risk_array_values(point: dict[str, Any]) -> tuple[float, float]:
    """What the engine of the risk arrays makes of an option on spot: the reference's value, and the compiled kernel's.

    The kernel states changes of value: a long option loses all of it when the price runs away.
    """
    rate = point["rate"]
    book = contracts(
        unit_value=UnitValue.EUROPEAN,
        is_valued=True,
        is_on_spot=True,
        level=point["spot"],
        strike=point["strike"],
        right=1.0 if point["is_call"] else -1.0,
        volatility=point["volatility"],
        year_fraction=point["year_fraction"],
        carry_rate=rate - point.get("dividend_yield", 0.0),
        discount_rate=rate,
    )
    value = unit_values(
        book,
        level=book.level[:, None],
        volatility=book.volatility[:, None],
        years=book.year_fraction[:, None],
        rate_shift=np.zeros((1, 1)),
    )
    away = moves(price_move=-1.0 + 1e-9 if point["is_call"] else 1e9)
    return float(value[0, 0]), -float(scenario_pnl_fast(book, away)[0, 0])


@pytest.mark.parametrize("case", cases("crypto", "options_haug_values", "values", describe=describe_haug))
def test_textbook_value(case: Case):
    for value in (black_scholes_price(**haug_point(case.row)), *risk_array_values(haug_point(case.row))):
        assert value == case.tolerance.approx(case["value"])


@pytest.mark.parametrize("case", cases("crypto", "options_haug_values", "greeks", describe=describe_haug))
def test_textbook_greek(case: Case):
    greeks = black_scholes_greeks(**haug_point(case.row))
    assert getattr(greeks, case["greek"]) == case.tolerance.approx(case["value"])


def describe_vollib(row: list[float]) -> str:
    return "_".join(str(value) for value in row[:5])


@pytest.mark.parametrize("case", cases("crypto", "options_vollib_values", "table.rows", describe=describe_vollib))
def test_vollib_table_row(case: Case):
    row = dict(zip(case.document["table"]["columns"], case.row, strict=True))
    inputs = {"spot": "S", "strike": "K", "rate": "R", "year_fraction": "t", "volatility": "v"}
    point = {name: row.pop(column) for name, column in inputs.items()}
    computed = {}
    for letter, side, is_call in (("C", "call", True), ("P", "put", False)):
        computed[f"bs_{side}"] = black_scholes_price(is_call=is_call, **point)
        for value in risk_array_values(point | {"is_call": is_call}):
            assert value == case.tolerance.approx(row[f"bs_{side}"]), side
        greeks = black_scholes_greeks(is_call=is_call, **point)
        computed |= {letter + column: getattr(greeks, name) for column, name in VOLLIB_GREEKS.items()}
    # Every published column, so that one with a name of its own is not passed over.
    for column, published in row.items():
        assert computed[column] == case.tolerance.approx(published), column


@pytest.mark.parametrize("case", cases("crypto", "options_vollib_values", "black76"))
def test_black76_example_of_vollib(case: Case):
    value = black76_price(
        forward=case["F"],
        strike=case["K"],
        volatility=case["sigma"],
        year_fraction=case["t"],
        is_call=case["type"] == "call",
        discount_factor=np.exp(-case["r"] * case["t"]),
    )
    assert value == case.tolerance.approx(case["price"])


@pytest.mark.parametrize("case", cases("crypto", "options_vollib_values", "black76_greeks"))
def test_black76_greeks_of_vollib(case: Case):
    # Black-76 with discounting is Black-Scholes-Merton with a dividend yield equal to the rate; the forward stands
    # still when both move together.
    greeks = black_scholes_greeks(
        spot=case["F"],
        strike=case["K"],
        volatility=case["sigma"],
        year_fraction=case["t"],
        rate=case["r"],
        dividend_yield=case["r"],
        is_call=case["type"] == "call",
    )
    computed = {
        "delta": greeks.delta,
        "gamma": greeks.gamma,
        "theta_per_day": greeks.theta_per_day,
        "vega_per_vol_point": greeks.vega / 100.0,
        "rho_per_pct": (greeks.rho + greeks.dividend_rho) / 100.0,
    }
    published = {name: value for name, value in case.row.items() if name not in ("F", "K", "r", "t", "sigma", "type")}
    published.pop("tol", None)
    for name, value in published.items():
        assert computed[name] == case.tolerance.approx(value), name


def describe_lyra(row: dict[str, Any]) -> str:
    return f"F{row['fwd']}_K{row['strike']}_vol{row['vol']}_{row['sec']}s"


@pytest.mark.parametrize("case", cases("crypto", "options_black76_svi_lyra", "black76.rows", describe=describe_lyra))
def test_black76_of_lyra(case: Case):
    point = {
        "forward": case["fwd"],
        "strike": case["strike"],
        "volatility": case["vol"],
        "year_fraction": case["sec"] / case.document["black76"]["year_seconds"],
    }
    for side in ("call", "put"):
        value = black76_price(is_call=side == "call", discount_factor=case["discount"], **point)
        assert value == case.tolerance.approx(case[side]), side
    assert black76_greeks(is_call=True, **point).delta == case.tolerance.approx(case["undiscounted_delta"])


def describe_svi(row: dict[str, Any]) -> str:
    return f"F{row['forward']}_tau{row['tau']:.4g}"


@pytest.mark.parametrize("case", cases("crypto", "options_black76_svi_lyra", "svi.rows", describe=describe_svi))
def test_svi_of_lyra(case: Case):
    shape = {name: case[name] for name in ("a", "b", "sigma")}
    slope = {name: case[name] for name in ("rho", "m")}
    for strike, published in case["vols"].items():
        volatility = venue_svi_volatility(
            strike_price=float(strike), forward_price=case["forward"], year_fraction=case["tau"], **shape, **slope
        )
        assert volatility == case.tolerance.approx(published), f"volatility at strike {strike}"
    for strike, published in case.get("k_clamped", {}).items():
        log_moneyness = clamped_log_moneyness(strike_price=float(strike), forward_price=case["forward"], **shape)
        assert log_moneyness == case.tolerance.approx(published), f"log-moneyness at strike {strike}"
