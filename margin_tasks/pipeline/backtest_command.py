"""``margin backtest``: a rulebook on real history, day by day as it would have margined, and what history says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.calibration.comparison_margins import (
    EWMA_SEED_DAYS,
    at_equal_coverage,
    following_scan_range,
    scanned_margin,
)
from margin_tasks.calibration.house_margin import COMPONENTS, MarginHistory, linear_margin_history
from margin_tasks.calibration.hypothetical_portfolios import LinearPortfolio, linear_portfolios
from margin_tasks.calibration.option_history import OptionHistory, option_history
from margin_tasks.calibration.portfolio_verdict import EPISODES, StandingPnl, judge, judge_episode, standing_pnl
from margin_tasks.calibration.procyclicality import swing
from margin_tasks.calibration.reverse_stress import exhausting_move, spare_factor
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.progress import Progress
from margin_tasks.pipeline.settings import PROJECT_ROOT
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.registry import load_rulebooks
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.scenarios.historical import DateArray
from margin_tasks.sources.history import History, read_accounts, read_history

EMBEDDED_CLOSES = PROJECT_ROOT / "examples" / "price_history.csv"
EMBEDDED_ACCOUNTS = PROJECT_ROOT / "examples" / "backtest_accounts.csv"
JUDGED = ("house_es",)
COMPARED = "span"

# A judged day costs some hundredths of a second: shorter histories are not worth starting processes for.
_DAYS_IN_PROCESS = 900
_DAYS_OF_TASK = 800
_FEWEST_DAYS = 30
_SENSITIVITY_STEP = 4

_CHANGED: Mapping[str, Mapping[str, Any]] = {
    "as stated": {},
    "filter decay 0.94": {"scenarios": {"filter": {"decay": 0.94}}},
    "filter decay 0.99": {"scenarios": {"filter": {"decay": 0.99}}},
    "volatility never shrinks a return": {"scenarios": {"filter": {"minimum_ratio": 1.0}}},
    "lookback 500": {"scenarios": {"lookback": 500}},
    "stressed share 0": {"stressed_share": 0.0},
    "stressed share 50 %": {"stressed_share": 0.5},
    "confidence 97.5 %": {"confidence": 0.975},
}
"""Parameters of the house model that are changed one at a time."""


@dataclass(frozen=True, slots=True)
class _Market:
    """Products margined together, and the linear books on them."""

    group: str
    closes: Mapping[str, pd.Series[float]]
    portfolios: tuple[LinearPortfolio, ...]

    @property
    def notional(self) -> FloatArray:
        return np.array([each.notional for each in self.portfolios], dtype=np.float64)


def back_test(
    *,
    rulebook_id: str,
    first: date,
    last: date,
    folder: Path | None,
    accounts_file: Path | None,
    has_sensitivity: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Margin every day from ``first`` to ``last`` and judge it; amounts are shares of the gross notional or the index.

    Args:
        rulebook_id: one of :data:`JUDGED`; its latest version.
        first: first day that is margined.
        last: last day that anything is known of.
        folder: history beside the embedded closes, see docs/methodology/backtests.md.
        accounts_file: books by account in place of those of the folder or the embedded ones.
        has_sensitivity: whether parameters are changed one at a time, too.
        progress: told what is being done.

    Returns:
        What the report prints and ``--json`` shows.

    Raises:
        MarginError: UNKNOWN_RULEBOOK for another rulebook, INVALID_REQUEST for days in the wrong order or without
            history, and whatever the reading of the history refuses.
    """
    rulebook, compared = _rulebooks(rulebook_id)
    if first >= last:
        raise MarginError(FailureReason.INVALID_REQUEST, f"--from {first} is not before --to {last}")
    methodology = rulebook.methodology
    if not isinstance(methodology, HouseEsMethodology):
        raise MarginError(FailureReason.UNKNOWN_RULEBOOK, f"{rulebook.rulebook_id} is not of the house model's family")
    progress.line("reading the history", waiting_for="history")
    history = read_history(EMBEDDED_CLOSES, folder)
    accounts = read_accounts(accounts_file) if accounts_file is not None else history.accounts
    accounts = read_accounts(EMBEDDED_ACCOUNTS) if accounts is None else accounts
    markets = _markets(history, accounts, last=last)
    span = (np.datetime64(first, "D"), np.datetime64(last, "D"))
    if not any((market_days(each, *span)).size > methodology.rules.liquidation_days for each in markets):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"the history has no days from {first} to {last}: {'; '.join(history.files)}",
        )
    work = _work(methodology, compared, rulebook, history, markets, span=span, has_sensitivity=has_sensitivity)
    done, refused = _carried_out(work, progress=progress)
    known = {name for market in markets for name in market.closes}
    refused.update({name: f"no close until {last}" for name in history.closes if name not in known})
    progress.line("judging", waiting_for="simulated critical values")
    rows: list[dict[str, Any]] = []
    for number, market in enumerate(markets):
        parts = [done[key] for key in work if key[:2] == ("linear", number) and key in done]
        if parts:
            days = market_days(market, *span)
            rows += _judged_market(market, days, _concatenated(parts), methodology, compared, history, refused=refused)
    option_rows = (
        _judged_options(done["options", 0, 0], methodology, refused=refused) if ("options", 0, 0) in done else []
    )
    if not rows and not option_rows:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "nothing can be judged: " + "; ".join(f"{name}: {why}" for name, why in refused.items()),
        )
    sensitivity = [
        _judged_change(name, markets[0], *span, done["change", place, 0], methodology)
        for place, name in enumerate(_CHANGED)
        if ("change", place, 0) in done
    ]
    return {
        "rulebook": f"{rulebook.rulebook_id}-{rulebook.version}",
        "title": rulebook.title,
        "compared_with": f"{compared.rulebook_id}-{compared.version}",
        "from": first,
        "to": last,
        "confidence": methodology.rules.confidence,
        "liquidation_days": methodology.rules.liquidation_days,
        "stressed_from": methodology.rules.scenarios.stressed_from,
        "stressed_to": methodology.rules.scenarios.stressed_to,
        "history": list(history.files),
        "portfolios": rows,
        "options": option_rows,
        "sensitivity": sensitivity,
        "sensitivity_step": _SENSITIVITY_STEP,
        "not_judged": [{"name": name, "reason": why} for name, why in refused.items()],
    }


def finite(found: Any) -> Any:
    """What :func:`back_test` returned, with null for what is not a finite number, which JSON has no word for."""
    if isinstance(found, dict):
        return {name: finite(value) for name, value in found.items()}
    if isinstance(found, list):
        return [finite(value) for value in found]
    return None if isinstance(found, float) and not np.isfinite(found) else found


def _rulebooks(rulebook_id: str) -> tuple[Rulebook, Rulebook]:
    on_file = sorted({each.rulebook_id for each in load_rulebooks()})
    if rulebook_id not in on_file:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK, f"rulebook {rulebook_id!r} is not on file: use {', '.join(JUDGED)}"
        )
    if rulebook_id not in JUDGED:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"rulebook {rulebook_id} has no back-test of its own: use {', '.join(JUDGED)}, which is held against "
            "span and flat margins",
        )
    # History is judged by the latest version, which need not have been in force then.
    latest = {each.rulebook_id: each for each in load_rulebooks()}
    return latest[rulebook_id], latest[COMPARED]


def _markets(history: History, accounts: pd.DataFrame, *, last: date) -> list[_Market]:
    """The embedded coins together, with the accounts' books; every other product by itself. Nothing after ``last``."""
    until = {name: series[series.index <= pd.Timestamp(last)] for name, series in history.closes.items()}
    embedded = list(pd.read_csv(EMBEDDED_CLOSES, nrows=0).columns)
    empty = [name for name, series in until.items() if not len(series)]
    if set(empty) & set(embedded):
        raise MarginError(FailureReason.INVALID_REQUEST, f"{', '.join(empty)}: no close until {last}")
    until = {name: series for name, series in until.items() if len(series)}
    coins = [name for name in embedded if name in until]
    unknown = sorted(set(accounts["product"]) - set(coins))
    if unknown:
        raise MarginError(
            FailureReason.UNKNOWN_INSTRUMENT,
            f"accounts hold {', '.join(unknown)}: books of accounts are of {', '.join(coins)} alone",
        )
    books = [
        LinearPortfolio(
            name=f"account {account}",
            notional=tuple(float(held.loc[held["product"] == coin, "notional_usd"].sum()) for coin in coins),
        )
        for account, held in accounts.groupby("account")
    ]
    joint = _Market("joint", {coin: until[coin] for coin in coins}, (*linear_portfolios(coins), *books))
    alone = [_Market("alone", {name: until[name]}, linear_portfolios([name])) for name in until if name not in coins]
    return [joint, *alone]


def market_days(market: _Market, first: np.datetime64, last: np.datetime64) -> DateArray:
    """Days between two days on which the market's longest history has a close."""
    longest = max(market.closes.values(), key=len)
    days = longest.index.to_numpy().astype("datetime64[D]")
    return days[(days >= first) & (days <= last)]


# --- what is computed, in processes ----------------------------------------------------------------------------------

_Key = tuple[str, int, int]
_Task = tuple[str, Callable[..., Any], dict[str, Any]]


def _work(
    methodology: HouseEsMethodology,
    compared: Rulebook,
    rulebook: Rulebook,
    history: History,
    markets: Sequence[_Market],
    *,
    span: tuple[np.datetime64, np.datetime64],
    has_sensitivity: bool,
) -> dict[_Key, _Task]:
    """Everything that can be computed by itself, the longest first: title, function and arguments."""
    work: dict[_Key, _Task] = {}
    horizon = methodology.rules.liquidation_days
    if history.chains is not None:
        arguments: dict[str, Any] = {
            "chains": history.chains, "closes": dict(markets[0].closes), "house": rulebook, "others": [compared],
            "first": span[0], "last": span[1], "horizon": horizon,
        }  # fmt: skip
        work["options", 0, 0] = ("option books on real chains", option_history, arguments)
    for number, market in enumerate(markets):
        days = market_days(market, *span)
        if len(days) <= horizon:
            continue
        named = ", ".join(market.closes)
        for part, some in enumerate(np.array_split(days, max(len(days) // _DAYS_OF_TASK, 1))):
            arguments = {
                "closes": dict(market.closes), "days": some, "notional": market.notional,
                "parameters": dict(history.parameters),
            }  # fmt: skip
            title = f"{named}: {some[0]} to {some[-1]}"
            work["linear", number, part] = (title, linear_margin_history, {"methodology": methodology, **arguments})
    if has_sensitivity:
        days = market_days(markets[0], *span)[::_SENSITIVITY_STEP]
        for place, (name, change) in enumerate(_CHANGED.items()):
            arguments = {
                "methodology": changed(methodology, change), "closes": dict(markets[0].closes), "days": days,
                "notional": _sensitive(markets[0])[1], "parameters": {},
            }  # fmt: skip
            work["change", place, 0] = (f"with {name}", linear_margin_history, arguments)
    return work


def changed(methodology: HouseEsMethodology, change: Mapping[str, Any]) -> HouseEsMethodology:
    """The methodology with some parameters of its rules stated anew, nested as in the definition."""

    def over(stated: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        return {**stated, **{name: over(stated[name], value) if isinstance(value, Mapping) else value
                             for name, value in new.items()}}  # fmt: skip

    rules = type(methodology.rules).model_validate(over(methodology.rules.model_dump(), change))
    return methodology.model_copy(update={"rules": rules})


def _carried_out(work: Mapping[_Key, _Task], *, progress: Progress) -> tuple[dict[_Key, Any], dict[str, str]]:
    """Results by key, and why the rest has none; side by side where it is worth it."""
    done: dict[_Key, Any] = {}
    refused: dict[str, str] = {}

    def finished(key: _Key, result: Callable[[], Any]) -> None:
        title = work[key][0]
        try:
            done[key] = result()
            progress.line(f"{title} ({len(done) + len(refused)} of {len(work)})", waiting_for="margins of other days")
        except MarginError as error:
            refused[title] = error.message
            progress.line(f"{title}: {error.message}")

    size = sum(len(arguments.get("days", ())) for _, _, arguments in work.values())
    workers = min(os.cpu_count() or 1, len(work))
    if workers == 1 or (size < _DAYS_IN_PROCESS and ("options", 0, 0) not in work):
        for key, (_, function, arguments) in work.items():
            finished(key, lambda function=function, arguments=arguments: function(**arguments))  # type: ignore[misc]
        return done, refused
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, **arguments): key for key, (_, function, arguments) in work.items()}
        for future in as_completed(futures):
            finished(futures[future], future.result)
    return done, refused


def _concatenated(parts: Sequence[MarginHistory]) -> MarginHistory:
    joined: dict[str, Any] = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(MarginHistory)
        if each.name != "components"
    }
    components = {name: np.concatenate([part.components[name] for part in parts]) for name in COMPONENTS}
    return MarginHistory(**joined, components=components)


# --- what is judged --------------------------------------------------------------------------------------------------


def _judged_market(
    market: _Market,
    days: DateArray,
    found: MarginHistory,
    methodology: HouseEsMethodology,
    compared: Rulebook,
    history: History,
    *,
    refused: dict[str, str],
) -> list[dict[str, Any]]:
    rules, notional = methodology.rules, market.notional
    at = np.searchsorted(days, found.days)
    pnl = _standing(market, days, notional, horizon=rules.liquidation_days)
    pnl = StandingPnl(worst=pnl.worst[at], final=pnl.final[at], is_complete=pnl.is_complete[at])
    others = _compared(market, days, notional, compared, history, horizon=rules.liquidation_days)
    gross = np.abs(notional).sum(axis=1)
    rows = []
    for place, portfolio in enumerate(market.portfolios):
        kept = pnl.is_complete[:, place] & found.is_margined[:, place]
        if kept.sum() < _FEWEST_DAYS:
            refused[portfolio.name] = f"{int(kept.sum())} judged days, fewer than {_FEWEST_DAYS}"
            continue
        size = gross[place]
        row = _judged(
            portfolio.name,
            found.days[kept],
            worst=pnl.worst[kept, place] / size,
            final=pnl.final[kept, place] / size,
            core=found.core[kept, place] / size,
            collected=found.initial[kept, place] / size,
            value_at_risk=found.value_at_risk[kept, place] / size,
            horizon=rules.liquidation_days,
            probability=1.0 - rules.confidence,
        )
        row["group"] = _group_of(market, portfolio)
        row["stand_in_days"] = int(found.has_stand_in[kept].sum())
        row["components"] = {name: float(found.components[name][kept, place].mean() / size) for name in COMPONENTS}
        row["compared"] = _costs(
            pnl.worst[kept, place] / size,
            core=found.core[kept, place] / size,
            collected=found.initial[kept, place] / size,
            others={name: margins[at][kept, place] / size for name, margins in others.items()},
        )
        row["reverse_stress"] = _reverse_stress(
            market, portfolio, resources=float(found.initial[found.is_margined[:, place], place][-1])
        )
        rows.append(row)
    return rows


def _group_of(market: _Market, portfolio: LinearPortfolio) -> str:
    if portfolio.name.startswith("account "):
        return "account"
    held = sum(1 for each in portfolio.notional if each)
    return "portfolio" if held > 1 else "product" if market.group == "joint" else "other product"


def _standing(market: _Market, days: DateArray, notional: FloatArray, *, horizon: int) -> StandingPnl:
    prices = pd.DataFrame(dict(market.closes)).reindex(pd.DatetimeIndex(days)).to_numpy(dtype=np.float64)
    return standing_pnl(prices, notional, horizon=horizon)


def _compared(
    market: _Market, days: DateArray, notional: FloatArray, compared: Rulebook, history: History, *, horizon: int
) -> dict[str, FloatArray]:
    """Margins of the rules that the model is held against, USD, shape (T, P)."""
    span: Any = compared.methodology
    stated = np.array(
        [
            parameter_of(
                span.commodities, underlying=history.parameters.get(name, name), rulebook_id="span", block="commodities"
            ).price_scan_range
            for name in market.closes
        ]
    )
    credit = float(span.inter_spreads[0].rate) if span.inter_spreads else 0.0
    following = np.full((len(days), len(market.closes)), np.nan)
    for column, series in enumerate(market.closes.values()):
        if len(series) < EWMA_SEED_DAYS + 2:
            continue  # its range is not known yet, and its books are not compared
        ranges = following_scan_range(np.asarray(series, dtype=np.float64), horizon=horizon)
        of_day = pd.Series(ranges, index=series.index).reindex(pd.DatetimeIndex(days))
        following[:, column] = of_day.to_numpy(dtype=np.float64)
    gross = np.abs(notional).sum(axis=1)
    return {
        "span": scanned_margin(notional, np.tile(stated, (len(days), 1)), credit_rate=credit),
        "span following volatility": scanned_margin(notional, following, credit_rate=credit),
        "flat": np.tile(gross, (len(days), 1)),
    }


def _costs(
    worst: FloatArray, *, core: FloatArray, collected: FloatArray, others: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """What other rules ask for: as they stand, and with as many exceptions as the model has."""
    found: dict[str, Any] = {}
    for name, margin in others.items():
        is_known = np.isfinite(margin) & (margin > 0.0)
        if not is_known.any():
            continue
        beside = {"core": core, "collected": collected}
        equal = {
            kind: asdict(at_equal_coverage(worst[is_known], model=model[is_known], other=margin[is_known]))
            for kind, model in beside.items()
            if (model[is_known] > 0.0).all()
        }
        swung = swing(margin[is_known]) if is_known.sum() > 2 else None
        found[name] = {
            "mean": float(margin[is_known].mean()),
            "exceptions": int((-worst[is_known] > margin[is_known]).sum()),
            "days": int(is_known.sum()),
            "peak_to_trough": None if swung is None else float(swung.peak_to_trough),
            "equal_coverage": equal,
        }
    return found


def _judged(
    name: str,
    days: DateArray,
    *,
    worst: FloatArray,
    final: FloatArray,
    core: FloatArray,
    collected: FloatArray,
    value_at_risk: FloatArray | None,
    horizon: int,
    probability: float,
) -> dict[str, Any]:
    verdicts = {
        "core": judge(
            days, worst=worst, final=final, margin=core, horizon=horizon, probability=probability,
            value_at_risk=value_at_risk,
        ),
        "collected": judge(
            days, worst=worst, final=final, margin=collected, horizon=horizon, probability=probability
        ),
    }  # fmt: skip
    episodes = {
        episode: {
            kind: None if found is None else asdict(found)
            for kind, margin in (("core", core), ("collected", collected))
            for found in [judge_episode(days, worst=worst, margin=margin, first=start, last=end)]
        }
        for episode, (start, end) in EPISODES.items()
    }
    row: dict[str, Any] = {"name": name, "days": len(days), "episodes": episodes}
    for kind, margin in (("core", core), ("collected", collected)):
        row[kind] = asdict(verdicts[kind])
        row[kind]["spare_factor"] = _spare(worst, margin, horizon=horizon, probability=probability)
        row[kind]["swing"] = _swing(margin)
    return row


def _spare(worst: FloatArray, margin: FloatArray, *, horizon: int, probability: float) -> float | None:
    """Least factor that every sample of horizons that do not overlap lets pass; None where nothing is asked."""
    if (margin <= 0.0).any():
        return None
    used = -worst / margin
    return max(spare_factor(used[start::horizon], probability=probability) for start in range(horizon))


def _swing(margin: FloatArray) -> dict[str, Any] | None:
    if (margin <= 0.0).any():
        return None
    found = swing(margin)
    return {
        "peak_to_trough": float(found.peak_to_trough),
        "largest_change": {str(days): float(value) for days, value in found.largest_change.items()},
    }


def _reverse_stress(market: _Market, portfolio: LinearPortfolio, *, resources: float) -> dict[str, Any]:
    """Moves that exhaust the margin of the last day: of one price, of all prices together, of two apart."""
    notional = np.array(portfolio.notional)
    found: dict[str, Any] = {"resources": resources / float(np.abs(notional).sum())}
    for name, size in zip(market.closes, portfolio.notional, strict=True):
        if size:
            found[f"{name} alone"] = exhausting_move(
                lambda move, size=size: -size * move,  # type: ignore[misc]
                resources=resources,
                largest=-1.0 if size > 0.0 else 5.0,
            )
    if len(notional) > 1 and notional.sum():
        found["all together"] = exhausting_move(
            lambda move: -notional.sum() * move, resources=resources, largest=-1.0 if notional.sum() > 0.0 else 5.0
        )
    if (notional > 0.0).any() and (notional < 0.0).any():
        found["apart, each way"] = exhausting_move(
            lambda move: -np.abs(notional).sum() * move, resources=resources, largest=-1.0
        )
    return {name: None if not np.isfinite(value) else value for name, value in found.items()}


def _judged_options(
    found: OptionHistory, methodology: HouseEsMethodology, *, refused: dict[str, str]
) -> list[dict[str, Any]]:
    rules = methodology.rules
    rows = []
    for place, name in enumerate(found.names):
        kept: BoolArray = found.is_complete[:, place] & np.isfinite(found.core[:, place])
        if kept.sum() < _FEWEST_DAYS:
            refused[name] = f"{int(kept.sum())} judged days, fewer than {_FEWEST_DAYS}"
            continue
        index = found.index_price[kept, place]
        worst, final = found.worst[kept, place] / index, found.final[kept, place] / index
        margins = {each: values[kept, place] / index for each, values in found.margins.items()}
        core, collected = found.core[kept, place] / index, margins.pop(next(iter(found.margins)))
        row = _judged(
            name, found.days[kept], worst=worst, final=final, core=core, collected=collected, value_at_risk=None,
            horizon=rules.liquidation_days, probability=1.0 - rules.confidence,
        )  # fmt: skip
        row["group"] = "options"
        row["reverse_stress"] = {
            kind: value if np.isfinite(value) else None for kind, value in found.exhausting.get(name, {}).items()
        }
        row["compared"] = _costs(worst, core=core, collected=collected, others={**margins, "flat": np.ones(len(worst))})
        rows.append(row)
    return rows


def _sensitive(market: _Market) -> tuple[tuple[str, ...], FloatArray]:
    """Books on which changed parameters are looked at: products and spreads, no accounts."""
    kept = [each for each in market.portfolios if not each.name.startswith("account ")]
    return tuple(each.name for each in kept), np.array([each.notional for each in kept])


def _judged_change(
    name: str,
    market: _Market,
    first: np.datetime64,
    last: np.datetime64,
    found: MarginHistory,
    methodology: HouseEsMethodology,
) -> dict[str, Any]:
    """Coverage of the core with one parameter changed, over the days that are looked at, by book."""
    horizon = methodology.rules.liquidation_days
    days = market_days(market, first, last)
    names, notional = _sensitive(market)
    pnl = _standing(market, days, notional, horizon=horizon)
    at = np.searchsorted(days, found.days)
    books = {}
    for place, book in enumerate(names):
        kept = pnl.is_complete[at, place] & found.is_margined[:, place]
        if kept.any():
            margin = found.core[kept, place]
            loss = -pnl.worst[at][kept, place]
            books[book] = {
                "days": int(kept.sum()),
                "exceptions": int((loss > margin).sum()),
                "mean": float(margin.mean() / np.abs(notional[place]).sum()),
                "collected_exceptions": int((loss > found.initial[kept, place]).sum()),
            }
    return {"change": name, "books": books}
