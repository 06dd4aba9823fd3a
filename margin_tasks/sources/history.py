"""History for calibration and back-tests: daily closes of products, and what venues publish beside them.

That is option chains, dated futures, funding of perpetuals and order books. The embedded closes come with the project;
a folder adds to them. Its layout, and how files with other names and columns are read, is stated in
docs/methodology/backtests.md. What is read is checked: a history with a hole, a repeated day or a price that is none is
refused by name and never mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.sources.delivery import SourceError

LAYOUT_FILE = "history.yaml"
LONGEST_CLOSURE_DAYS = 7
"""Calendar days from one session to the next of a product that does not trade every day; more is a hole."""

_EVERY_DAY_SHARE = 0.2
_ONE_DAY = pd.Timedelta(days=1)
_CLOSE_COLUMNS = ("product", "date", "close")
_CHAIN_COLUMNS = (
    "quote_ts",
    "currency",
    "option_type",
    "strike",
    "expiry_ts",
    "underlying_price",
    "index_price",
    "mark_price",
    "mark_iv",
)
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "closes": _CLOSE_COLUMNS,
    "option_chains": _CHAIN_COLUMNS,
    "futures": ("product", "quote_ts", "expiry_ts", "future_price", "index_price"),
    "funding": ("product", "paid_at", "rate"),
    "order_books": ("product", "venue", "taken_at", "side", "price", "size"),
}
_INSTANTS = ("quote_ts", "expiry_ts", "paid_at", "taken_at")
_NUMBERS = ("future_price", "index_price", "rate", "price", "size")
_UNIQUE: Mapping[str, tuple[str, ...]] = {
    "futures": ("product", "quote_ts", "expiry_ts"),
    "funding": ("product", "paid_at"),
    "order_books": ("product", "venue", "symbol", "taken_at", "side", "price"),
}
_SYNONYMS = {
    "product": ("symbol", "series", "asset"),
    "date": ("price_date", "ts", "day"),
    "close": ("close_price", "price"),
    "quote_ts": ("snapshot_ts",),
    "option_type": ("option_right", "right"),
}
_ACCOUNT_COLUMNS = ("account", "product", "notional_usd")


class HistoryFile(BaseModel):
    """How one file of the folder is read: delivered column -> column of the layout, delivered product -> product.

    Where ``products`` are named, no other product is taken from the file. ``until``: last day that is taken, so that a
    bar which was not complete when it was delivered stays out. ``unit``: by which rates of funding are multiplied to be
    shares, and sizes of order books to be coins, or US dollars where ``is_unit_usd`` (contracts of a fixed value).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["closes", "option_chains", "futures", "funding", "order_books"]
    columns: Mapping[str, str] = Field(default_factory=dict)
    products: Mapping[str, str] = Field(default_factory=dict)
    until: date | None = None
    unit: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    is_unit_usd: bool = False


class HistoryLayout(BaseModel):
    """Contents of ``history.yaml``; ``parameters``: product -> the underlying whose parameters it is margined by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: Annotated[Mapping[str, HistoryFile], Field(min_length=1)]
    parameters: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What was read.

    ``closes``: product -> closes by day (index datetime64, ascending, positive). ``chains``: option quotes with the
    columns of the layout, sorted by quote, or None. ``futures``, ``funding``, ``order_books``: rows with the columns of
    the layout, rates as shares and sizes in coins, sorted, or None. ``accounts``: rows of ``account``, ``product``,
    ``notional_usd``, or None. ``parameters``: as in :class:`HistoryLayout`. ``files``: what each file gave, for the
    reader of a report.
    """

    closes: Mapping[str, pd.Series[float]]
    chains: pd.DataFrame | None
    accounts: pd.DataFrame | None
    parameters: Mapping[str, str]
    files: tuple[str, ...]
    futures: pd.DataFrame | None = None
    funding: pd.DataFrame | None = None
    order_books: pd.DataFrame | None = None


def read_history(embedded: Path, folder: Path | None = None) -> History:
    """Read the embedded closes, and what a folder adds to them.

    A product that both have keeps its embedded closes; the folder continues them after their last day, in proportion
    to the close that both have of that day, so that two venues' levels make no move of their own.

    Args:
        embedded: wide CSV, ``price_date`` and one column for each product.
        folder: closes, option chains and accounts in the documented layout.

    Raises:
        SourceError: NOT_FOUND for a file or folder that is not there, FILE_UNREADABLE for one that cannot be read or
            lacks a column, DUPLICATE_KEY for a repeated day or quote, PRICE_UNAVAILABLE for a price that is not
            positive and finite or never moves, FEED_INCOMPLETE for a hole.
    """
    if not embedded.is_file():
        raise SourceError(FailureReason.NOT_FOUND, f"there is no history at {embedded}; restore it from the repository")
    wide = _delivered(embedded)
    if "price_date" not in wide:
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{embedded.name} has no column price_date")
    long = wide.melt(id_vars="price_date", var_name="product", value_name="close").dropna(subset=["close"])
    closes = _closes(long.rename(columns={"price_date": "date"}), file=embedded.name)
    if folder is None:
        return History(closes=closes, chains=None, accounts=None, parameters={}, files=(_said(embedded.name, closes),))
    if not folder.is_dir():
        raise SourceError(FailureReason.NOT_FOUND, f"there is no folder {folder}; name one that holds a history")
    files = [_said(embedded.name, closes)]
    layout = _layout(folder)
    chains: list[pd.DataFrame] = []
    others: dict[str, list[pd.DataFrame]] = {"futures": [], "funding": [], "order_books": []}
    added: dict[str, pd.Series[float]] = {}
    for name, stated in layout.files.items():
        frame = _renamed(_delivered(folder / name), stated, file=name)
        if stated.kind == "option_chains":
            chains.append(_chain(frame, stated, file=name))
            files.append(f"{name}: {len(chains[-1]):,} option quotes")
            continue
        if stated.kind in others:
            others[stated.kind].append(_rows(frame, stated, file=name))
            files.append(f"{name}: {len(others[stated.kind][-1]):,} rows of {stated.kind.replace('_', ' ')}")
            continue
        found = _closes(frame, file=name, until=stated.until)
        twice = sorted(set(found) & set(added))
        if twice:
            raise SourceError(FailureReason.DUPLICATE_KEY, f"{name}: {', '.join(twice)} is in another file, too")
        added.update(found)
        files.append(_said(name, found))
    for product, series in added.items():
        known = closes.get(product)
        closes[product] = series if known is None else _continued(known, series, product=product)
    for product, series in closes.items():
        _refuse_holes(product, series)
    return History(
        closes=closes,
        chains=_joined(chains) if chains else None,
        accounts=read_accounts(folder / "accounts.csv") if (folder / "accounts.csv").is_file() else None,
        parameters=layout.parameters,
        files=tuple(files),
        **{kind: _together(kind, parts) for kind, parts in others.items()},
    )


def read_accounts(file: Path) -> pd.DataFrame:
    """Read linear books by account: ``account``, ``product``, ``notional_usd`` (signed, long positive).

    Raises:
        SourceError: NOT_FOUND, FILE_UNREADABLE for a column that lacks or an amount that is not finite, DUPLICATE_KEY
            for a product that an account has twice, FEED_EMPTY without a row.
    """
    frame = _delivered(file)
    _need(frame, _ACCOUNT_COLUMNS, file=file.name)
    frame = frame[list(_ACCOUNT_COLUMNS)].copy()
    frame["notional_usd"] = pd.to_numeric(frame["notional_usd"], errors="coerce")
    if not len(frame):
        raise SourceError(FailureReason.FEED_EMPTY, f"{file.name} holds no account")
    if not np.isfinite(frame["notional_usd"].to_numpy(dtype=np.float64)).all():
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{file.name}: a notional_usd is not a finite number")
    if frame.duplicated(["account", "product"]).any():
        raise SourceError(FailureReason.DUPLICATE_KEY, f"{file.name}: an account has a product twice; add them up")
    return frame


def _continued(known: pd.Series[float], series: pd.Series[float], *, product: str) -> pd.Series[float]:
    last = known.index[-1]
    later = series[series.index > last]
    if not len(later):
        return known
    if last not in series.index:
        raise SourceError(
            FailureReason.FEED_INCOMPLETE,
            f"{product}: the folder continues the embedded closes but has none of {last:%Y-%m-%d}; deliver that day",
        )
    joined: pd.Series[float] = pd.concat([known, later * (float(known.iloc[-1]) / float(series[last]))])
    return joined


def is_every_day(days: pd.DatetimeIndex) -> bool:
    """Whether a product trades on weekends, too: a fifth of its days, where sessions of an exchange have none."""
    return bool((days.day_of_week >= 5).mean() > _EVERY_DAY_SHARE)


def _layout(folder: Path) -> HistoryLayout:
    stated = folder / LAYOUT_FILE
    if stated.is_file():
        try:
            return HistoryLayout.model_validate(yaml.safe_load(stated.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValidationError) as error:
            raise SourceError(FailureReason.FILE_UNREADABLE, f"{LAYOUT_FILE} is not understood: {error}") from error
    kinds: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        for kind in _COLUMNS:
            if file.name.startswith(kind) and file.suffix in (".csv", ".parquet"):
                kinds[file.name] = HistoryFile(kind=kind)
    if not kinds:
        raise SourceError(
            FailureReason.NOT_FOUND,
            f"{folder} holds no {'*, '.join(_COLUMNS)}* with the ending .csv or .parquet; "
            f"add one, or name files in {LAYOUT_FILE}",
        )
    return HistoryLayout(files=kinds)


def _delivered(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise SourceError(FailureReason.NOT_FOUND, f"there is no file {file.name} in {file.parent}; deliver it")
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{file.name} cannot be read: {error}") from error


def _renamed(frame: pd.DataFrame, stated: HistoryFile, *, file: str) -> pd.DataFrame:
    wanted = _COLUMNS[stated.kind]
    frame = frame.rename(columns=dict(stated.columns))
    has_symbol = stated.kind == "order_books" and "symbol" in frame.columns
    if has_symbol and "product" not in frame.columns:
        frame = frame.assign(product=frame["symbol"])
    for name in wanted:
        synonym = next((each for each in _SYNONYMS.get(name, ()) if each in frame.columns), None)
        if name not in frame.columns and synonym is not None:
            frame = frame.rename(columns={synonym: name})
    _need(frame, wanted, file=file)
    if stated.kind == "order_books":
        # Two contracts of a venue stay two books, also where they are margined as one product.
        wanted, frame = (
            (*wanted, "symbol"),
            frame.assign(symbol=frame["symbol" if has_symbol else "product"].astype(str)),
        )
    key = "currency" if stated.kind == "option_chains" else "product"
    if stated.products:
        missing = sorted(set(stated.products) - set(frame[key].astype(str)))
        if missing:
            raise SourceError(FailureReason.NOT_FOUND, f"{file} has no rows of {', '.join(missing)}")
        frame = frame[frame[key].astype(str).isin(list(stated.products))].copy()
        frame[key] = frame[key].astype(str).map(dict(stated.products))
    return frame[list(wanted)]


def _need(frame: pd.DataFrame, wanted: tuple[str, ...], *, file: str) -> None:
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise SourceError(
            FailureReason.FILE_UNREADABLE,
            f"{file} has no column {', '.join(missing)}; rename it, or say in {LAYOUT_FILE} which one it is",
        )


def _instants(values: pd.Series[Any], *, file: str, name: str) -> pd.Series[pd.Timestamp]:
    instants = pd.to_datetime(values, errors="coerce", format="ISO8601")
    if instants.isna().any():
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{file}: a {name} is no date; write YYYY-MM-DD")
    return instants.dt.tz_localize(None) if instants.dt.tz is not None else instants


def _closes(frame: pd.DataFrame, *, file: str, until: date | None = None) -> dict[str, pd.Series[float]]:
    rows = pd.DataFrame(
        {
            "product": frame["product"].astype(str),
            "date": _instants(frame["date"], file=file, name="date").dt.normalize(),
            "close": pd.to_numeric(frame["close"], errors="coerce"),
        }
    )
    if until is not None:
        rows = rows[rows["date"] <= pd.Timestamp(until)]
    if not len(rows):
        raise SourceError(FailureReason.FEED_EMPTY, f"{file} holds no close")
    twice = rows[rows.duplicated(["product", "date"])]
    if len(twice):
        first = twice.iloc[0]
        raise SourceError(
            FailureReason.DUPLICATE_KEY,
            f"{file}: {first['product']} has {first['date']:%Y-%m-%d} twice; keep one close",
        )
    price = rows["close"].to_numpy(dtype=np.float64)
    is_bad = ~(np.isfinite(price) & (price > 0.0))
    if is_bad.any():
        first = rows[is_bad].iloc[0]
        raise SourceError(
            FailureReason.PRICE_UNAVAILABLE,
            f"{file}: the close of {first['product']} on {first['date']:%Y-%m-%d} is not positive and finite",
        )
    found: dict[str, pd.Series[float]] = {}
    for product, of_one in rows.sort_values(["product", "date"]).groupby("product"):
        series = of_one.set_index("date")["close"].astype(np.float64)
        if len(series) > 1 and bool((series == series.iloc[0]).all()):
            raise SourceError(
                FailureReason.PRICE_UNAVAILABLE,
                f"{file}: {product} has the same close on all {len(series)} days; deliver prices that were traded",
            )
        _refuse_holes(str(product), series)
        found[str(product)] = series
    return found


def _refuse_holes(product: str, series: pd.Series[float]) -> None:
    days = pd.DatetimeIndex(series.index)
    steps = np.diff(days.to_numpy()).astype("timedelta64[D]").astype(np.int64)
    longest = 1 if is_every_day(days) else LONGEST_CLOSURE_DAYS
    at = np.flatnonzero(steps > longest)
    if len(at):
        raise SourceError(
            FailureReason.FEED_INCOMPLETE,
            f"{product}: no close between {days[at[0]]:%Y-%m-%d} and {days[at[0] + 1]:%Y-%m-%d} "
            f"({len(at)} holes in all); deliver them, or the part of the history that has none",
        )


def _chain(frame: pd.DataFrame, stated: HistoryFile, *, file: str) -> pd.DataFrame:
    rows = frame.copy()
    for name in ("quote_ts", "expiry_ts"):
        rows[name] = _instants(rows[name], file=file, name=name)
    for name in ("strike", "underlying_price", "index_price", "mark_price", "mark_iv"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
    rows["option_type"] = rows["option_type"].astype(str)
    rows["currency"] = rows["currency"].astype(str)
    if stated.until is not None:
        rows = rows[rows["quote_ts"] < pd.Timestamp(stated.until) + pd.Timedelta(days=1)]
    if not rows["option_type"].isin(["call", "put"]).all():
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{file}: an option_type is neither call nor put")
    for name in ("strike", "underlying_price", "index_price", "mark_iv"):
        values = rows[name].to_numpy(dtype=np.float64)
        is_bad = ~np.isfinite(values) | (values < 0.0 if name == "mark_iv" else values <= 0.0)
        if is_bad.any():
            raise SourceError(
                FailureReason.PRICE_UNAVAILABLE,
                f"{file}: {name} of {int(is_bad.sum())} quotes, the first on {rows['quote_ts'][is_bad].iloc[0]}, "
                "is not positive and finite; correct or leave them out",
            )
    price = rows["mark_price"].to_numpy(dtype=np.float64)
    if (~np.isfinite(price) | (price < 0.0)).any():
        raise SourceError(FailureReason.PRICE_UNAVAILABLE, f"{file}: a mark_price is missing or negative")
    return rows


def _rows(frame: pd.DataFrame, stated: HistoryFile, *, file: str) -> pd.DataFrame:
    """Rows of futures, funding or order books: instants and finite numbers, nothing mended."""
    rows = frame.copy()
    rows["product"] = rows["product"].astype(str)
    for name in (each for each in _INSTANTS if each in rows):
        rows[name] = _instants(rows[name], file=file, name=name)
    for name in (each for each in _NUMBERS if each in rows):
        rows[name] = pd.to_numeric(rows[name], errors="coerce").astype(np.float64)
        values = rows[name].to_numpy()
        is_bad = ~np.isfinite(values) | ((values <= 0.0) if name != "rate" else False)
        if is_bad.any():
            raise SourceError(
                FailureReason.PRICE_UNAVAILABLE,
                f"{file}: {name} of {int(is_bad.sum())} rows, the first of {rows['product'][is_bad].iloc[0]}, "
                f"is not {'finite' if name == 'rate' else 'positive and finite'}; correct or leave them out",
            )
    if "side" in rows and not rows["side"].isin(["bid", "ask"]).all():
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{file}: a side is neither bid nor ask")
    if stated.until is not None:
        at = next(name for name in _INSTANTS if name in rows and name != "expiry_ts")
        rows = rows[rows[at] < pd.Timestamp(stated.until) + _ONE_DAY]
    if stated.kind == "funding":
        rows["rate"] = rows["rate"] * stated.unit
    if stated.kind == "order_books":
        rows["size"] = rows["size"] * stated.unit / (rows["price"] if stated.is_unit_usd else 1.0)
    return rows


def _together(kind: str, parts: list[pd.DataFrame]) -> pd.DataFrame | None:
    if not parts:
        return None
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.sort_values([*_COLUMNS[kind], *({"symbol"} & set(rows))], kind="stable", ignore_index=True)
    key = list(_UNIQUE.get(kind, ()))
    if key and rows.duplicated(key).any():
        first = rows[rows.duplicated(key)].iloc[0]
        raise SourceError(
            FailureReason.DUPLICATE_KEY, f"{kind}: {first['product']} comes twice at {first[key[1]]}; keep one row"
        )
    return rows


def _joined(chains: list[pd.DataFrame]) -> pd.DataFrame:
    key = ["quote_ts", "currency", "expiry_ts", "strike", "option_type"]
    rows = pd.concat(chains, ignore_index=True).sort_values(key, kind="stable", ignore_index=True)
    if rows.duplicated(key).any():
        first = rows[rows.duplicated(key)].iloc[0]
        raise SourceError(
            FailureReason.DUPLICATE_KEY, f"option chains: a contract is quoted twice at {first['quote_ts']}"
        )
    return rows


def _said(file: str, closes: Mapping[str, pd.Series[float]]) -> str:
    spans = ", ".join(f"{name} {days.index[0]:%Y-%m-%d}..{days.index[-1]:%Y-%m-%d}" for name, days in closes.items())
    return f"{file}: {spans}"
