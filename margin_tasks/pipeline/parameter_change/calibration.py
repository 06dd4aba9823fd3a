"""A calibration: estimates of every parameter after a day, and the proposal that may follow from them.

It reads what the published run of the day read, writes only to ``parameters``, and puts nothing in force.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from margin_tasks.calibration.backtests.coverage import zones
from margin_tasks.calibration.calibrate import ParameterEstimate, estimate_parameters
from margin_tasks.calibration.changes import Change, ParameterBook, Proposal, set_id
from margin_tasks.calibration.judgement import JUDGED_DAYS, moves_beyond
from margin_tasks.calibration.policy import CalibrationPolicy, calibration_policy_in_force
from margin_tasks.calibration.tool_policy import ToolState
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import from_arrow
from margin_tasks.contracts.parameter_vocabulary import ProposalKind, Significance
from margin_tasks.contracts.tables import FEEDS, VALIDATION
from margin_tasks.market.asset_policy import asset_price_policies_in_force
from margin_tasks.market.policy import market_policy_in_force
from margin_tasks.market.prices import index_prices
from margin_tasks.pipeline.compute import requirements_under
from margin_tasks.pipeline.inquiries import list_runs, run_in_force
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change.log import (
    SCHEMA,
    approved_versions,
    changed_book,
    parameter_table,
    read_book,
    versions_with,
)
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import session_cut_off
from margin_tasks.pipeline.settings import Settings
from margin_tasks.rulebooks import registry
from margin_tasks.rulebooks.calibrated import PRICE_RANGE, calibrated_values, rulebook_of
from margin_tasks.warehouse.lake import Lake

_SURFACE_NUMBERS = ("tenor_days", "moneyness", "implied_volatility")
CHAMPION, CHALLENGER = "champion", "challenger"

DIGITS = 4
"""Values are proposed with so many digits, rounded up: a tenth of a basis point below what is needed is below it."""

_STATES = """
select parameter, arg_max(tool_state, business_date) as tool_state from parameters.estimates
where parameter_role = 'champion' and business_date < $1 and tool_state is not null
group by parameter
"""
_OF_RUN = "select * from parameters.estimates where run_id = $1 order by parameter, parameter_role, estimator"
_QUOTED = """
select market_prices.business_date as surface_date, instruments.underlying,
    epoch(instruments.expiry_at - market_prices.observed_at) / 86400.0 as tenor_days,
    instruments.strike_price / market_prices.forward_price as moneyness,
    market_prices.mark_iv as implied_volatility
from raw.market_prices
inner join raw.instruments using (run_id, instrument_id)
where list_contains($1, market_prices.run_id) and market_prices.mark_iv > 0
    and market_prices.forward_price > 0 and instruments.expiry_at > market_prices.observed_at
    and (instruments.option_type = 'call') = (instruments.strike_price >= market_prices.forward_price)
order by all
"""
_IMPACT_BEFORE = """
select account_id, rulebook_id, initial_margin as requirement_before, currency
from risk.account_margin where run_id = $1 order by account_id
"""


class Calibration(BaseModel):
    """Identity of one calibration; small, JSON, and handed from task to task.

    ``clearing_run_id``: the published run whose feeds are read. ``runner`` and ``started_by`` as of a run.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    business_date: date
    session: str
    clearing_run_id: str
    runner: str
    started_by: str
    is_requested: bool
    recorded_at: datetime


def open_calibration(
    here: Settings,
    *,
    business_date: date,
    run_id: str,
    runner: str,
    started_by: str,
    is_requested: bool,
    now: datetime,
) -> Calibration:
    """Give a calibration its identity, from the published run of a day.

    Raises:
        MarginError: NOT_FOUND when the day was not published; INVALID_REQUEST without a calibration policy.
    """
    calibration_policy_in_force(business_date)
    with lake(here, holder=f"calibration {run_id}", is_read_only=True) as opened:
        standing = run_in_force(opened, business_date=business_date, session="EOD")
    return Calibration(
        run_id=run_id, business_date=business_date, session="EOD", clearing_run_id=standing["run_id"], runner=runner,
        started_by=started_by, is_requested=is_requested, recorded_at=now,
    )  # fmt: skip


# --- estimates -------------------------------------------------------------------------------------------------------


def closes_of(opened: Lake, run_id: str) -> pd.DataFrame:
    """Closes of a run's history and the day's own index at the cut-off: a row for each date, a column for each asset.

    History ends on the day before. The day that is calibrated after is the one that matters most, and its index is the
    last price known; the next day's history brings its close.
    """
    rows = opened.query(
        "select asset, price_date, close_price from raw.price_history where run_id = $1 order by asset, price_date",
        [run_id],
    ).to_pandas()
    if rows.empty:
        raise MarginError(FailureReason.FEED_EMPTY, f"run {run_id} has no price history: nothing can be calibrated")
    rows = pd.concat([rows, _index_of_the_day(opened, run_id, known=rows)], ignore_index=True)
    by_day = rows.set_index(["price_date", "asset"])["close_price"]
    wide: pd.DataFrame = by_day.unstack("asset").astype("float64")  # noqa: PD010 - a date that comes twice is an error
    return pd.DataFrame(wide.set_axis(pd.DatetimeIndex(wide.index), axis=0).sort_index())


def estimate(here: Settings, calibration: Calibration) -> tuple[int, int]:
    """Estimate every parameter, as the policy does and by each of its estimators alone, and record it.

    Returns how many estimates were made as champion and as challenger. May be done again: it is recorded once.

    Raises:
        MarginError: FEED_EMPTY, INVALID_REQUEST.
    """
    day = calibration.business_date
    policy = calibration_policy_in_force(day)
    with lake(here, holder=f"calibration {calibration.run_id}: read", is_read_only=True) as opened:
        closes = closes_of(opened, calibration.clearing_run_id)
        surfaces = surfaces_of(opened, until=day)
        in_force = _values_in_force(opened, day)
        states = _states(opened, day)
    known = {name: value for name, value in in_force.items() if name.startswith(f"{policy.rulebook}.")}
    arguments = {"as_of": day, "in_force": known, "states": states}
    say("  estimates by the policy", waiting_for="estimating parameters")
    champion = estimate_parameters(closes, policy=policy, surfaces=surfaces, **arguments)  # type: ignore[arg-type]
    rows = [_estimate_row(each, role=CHAMPION, calibration=calibration) for each in champion]
    for estimator in sorted({name for rules in _rules(policy) for name in rules}):
        say(f"  challenger {estimator}")
        alone = estimate_parameters(closes, policy=_alone(policy, estimator), **arguments)  # type: ignore[arg-type]
        for each in alone:
            row = _estimate_row(each, role=CHALLENGER, calibration=calibration)
            rows.append({**row, "estimator": estimator, "tool_state": None})
    with lake(here, holder=f"calibration {calibration.run_id}") as opened:
        opened.record(
            schema=SCHEMA,
            tables={"estimates": parameter_table("estimates", rows)},
            author=f"calibration {calibration.run_id}",
            message=f"{len(rows)} estimates of {day}",
        )
    return len(champion), len(rows) - len(champion)


def _index_of_the_day(opened: Lake, run_id: str, *, known: pd.DataFrame) -> pd.DataFrame:
    """The index of assets that have a history without a close of the run's own day."""
    table = FEEDS["index_quotes"]
    stored = opened.run_rows(run_id, schema="raw", table=table.name)
    if stored.num_rows == 0:
        return known.iloc[:0]
    day: date = stored["business_date"][0].as_py()
    index = index_prices(
        from_arrow(stored.select(list(table.column_names)), table),
        cutoff_at=session_cut_off(day, "EOD", None),
        policy=market_policy_in_force(day),
        asset_policies=asset_price_policies_in_force(day),
    )
    closed = known.loc[known["price_date"] == pd.Timestamp(day), "asset"]
    wanted = index[index["asset"].isin(known["asset"]) & ~index["asset"].isin(closed)]
    return pd.DataFrame(
        {"asset": wanted["asset"], "price_date": day, "close_price": wanted["index_price"].astype(np.float64)}
    )


def _rules(policy: CalibrationPolicy) -> list[tuple[str, ...]]:
    return [
        tuple(str(name) for name in rules.price.estimators) for rules in (policy.default, *policy.underlyings.values())
    ]


def _alone(policy: CalibrationPolicy, estimator: str) -> CalibrationPolicy:
    """The policy with one estimator in place of its own, and nothing else changed."""
    document = policy.model_dump(mode="json")
    for rules in (document["default"], *document["underlyings"].values()):
        rules["price"]["estimators"] = [estimator]
    return CalibrationPolicy.model_validate(document)


def _values_in_force(opened: Lake, day: date) -> dict[str, float]:
    with registry.approved(approved_versions(opened, business_date=day)):
        return calibrated_values(registry.rulebooks_in_force(day))


def _states(opened: Lake, day: date) -> dict[str, ToolState]:
    if "estimates" not in opened.table_names(SCHEMA):
        return {}
    rows = opened.query(_STATES, [day]).to_pylist()
    return {row["parameter"]: ToolState.model_validate_json(row["tool_state"]) for row in rows}


def _estimate_row(found: ParameterEstimate, *, role: str, calibration: Calibration) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "parameter": found.parameter,
        "parameter_role": role,
        "estimator": found.estimator or "none",
        "value_in_force": found.value_in_force,
        "model_value": found.model_value,
        "proposed_value": found.proposed_value,
        "lower_value": finite(found.lower),
        "upper_value": finite(found.upper),
        "estimate_outcome": str(found.outcome),
        "estimate_fallback": str(found.fallback),
        "estimate_findings": "; ".join(found.findings) or None,
        "observations": found.observations,
        "first_day": found.first_day,
        "last_day": found.last_day,
        "excess_kurtosis": finite(found.excess_kurtosis),
        "tail_index": finite(found.tail_index),
        "tail_index_error": finite(found.tail_index_error),
        "tool_state": found.tool_state.model_dump_json(),
        "run_id": calibration.run_id,
        "business_date": calibration.business_date,
        "session": calibration.session,
        "recorded_at": calibration.recorded_at,
    }


def estimates_of(opened: Lake, run_id: str) -> list[dict[str, Any]]:
    """Return the recorded estimates of a calibration."""
    rows: list[dict[str, Any]] = opened.query(_OF_RUN, [run_id]).to_pylist()
    return rows


def surfaces_of(opened: Lake, *, until: date) -> pd.DataFrame | None:
    """Volatility of options out of the money, as the published days up to one were marked; None without options.

    The history of surfaces is the clearing house's own: it grows by a day with each day that is published.
    """
    standing = [
        run["run_id"]
        for run in list_runs(opened)
        if run["status"] == "published"
        and run["superseded_by"] is None
        and run["session"] == "EOD"
        and run["business_date"] <= until
    ]
    rows = opened.query(_QUOTED, [standing]).to_pandas()
    return None if rows.empty else rows.astype(dict.fromkeys(_SURFACE_NUMBERS, "float64"))


# --- proposal --------------------------------------------------------------------------------------------------------


def propose(here: Settings, calibration: Calibration, *, now: datetime) -> str | None:
    """Propose what the estimates ask for, when it is time: asked for, once a month, or when a back-test left green.

    Returns the proposal, None where none is due or nothing would change. May be done again: it is the same proposal.
    """
    day = calibration.business_date
    with lake(here, holder=f"calibration {calibration.run_id}: read", is_read_only=True) as opened:
        rows = [row for row in estimates_of(opened, calibration.run_id) if row["parameter_role"] == CHAMPION]
        closes = closes_of(opened, calibration.clearing_run_id)
        book = read_book(opened, business_date=day)
    policy = calibration_policy_in_force(day)
    due = _due(book, calibration, rows=rows, closes=closes, policy=policy)
    if due is None:
        say("  no proposal is due: no new month, and every back-test is green")
        return None
    kind, reason = due
    head = dict(book.head_values())
    # Nothing can be approved that would take effect before what was approved last.
    approved_days = [standing.proposal.valid_from for standing in book.approved()]
    asked = {row["parameter"]: rounded_up(row["proposed_value"]) for row in rows if row["parameter"] in head}
    proposal = proposal_of(
        head, asked, kind=kind, reason=reason, proposed_by=calibration.started_by, run_id=calibration.run_id,
        business_date=day, valid_from=max([day + timedelta(days=1), *approved_days]), policy=policy, closes=closes,
    )  # fmt: skip
    if proposal is None:
        say("  nothing would change: the values in force are those that the data ask for")
        return None
    return enter(here, proposal, clearing_run_id=calibration.clearing_run_id, now=now)


def enter(here: Settings, proposal: Proposal, *, clearing_run_id: str, now: datetime) -> str:
    """Record a proposal with what it would change of every account; the same one again adds nothing."""
    say(f"  proposal {proposal.proposal_id}: {len(proposal.changes)} parameters, {proposal.significance}")
    rows = impact(here, proposal, clearing_run_id=clearing_run_id, now=now)
    author = f"proposal {proposal.proposal_id}"
    with changed_book(here, holder=author, business_date=proposal.business_date) as (opened, book):
        opened.record(
            schema=SCHEMA,
            tables={"impacts": parameter_table("impacts", rows)},
            author=author,
            message=f"impact on {len(rows)} accounts",
        )
        book.propose(proposal, now=now)
    return proposal.proposal_id


def proposal_of(
    head: Mapping[str, float],
    asked: Mapping[str, float],
    *,
    kind: ProposalKind,
    reason: str,
    proposed_by: str,
    run_id: str,
    business_date: date,
    valid_from: date,
    policy: CalibrationPolicy,
    closes: pd.DataFrame,
) -> Proposal | None:
    """The proposal of values that are asked for, each judged beside the one in force; None where nothing changes."""
    changes = []
    for parameter, value in sorted(asked.items()):
        before = head[parameter]
        significance = policy.significance.of(before, value)
        if significance is Significance.NONE:
            continue
        judged = _judged(parameter, (before, value), policy=policy, closes=closes)
        changes.append(
            Change(parameter=parameter, value_before=before, value_after=value, significance=significance, **judged)
        )
    if not changes:
        return None
    values = {**head, **{change.parameter: change.value_after for change in changes}}
    named = hashlib.sha256(f"{run_id}|{kind}|{set_id(values)}".encode()).hexdigest()[:8]
    return Proposal(
        proposal_id=f"{business_date:%Y%m%d}-{kind.lower()}-{named}",
        kind=kind, changes=tuple(changes), set_values=values, parent_set_id=set_id(head), valid_from=valid_from,
        reason=reason, proposed_by=proposed_by, run_id=run_id, business_date=business_date, session="EOD",
    )  # fmt: skip


def rounded_up(value: float) -> float:
    """The value with :data:`DIGITS` digits, never below it but for the rounding of its own last bit."""
    scale = 10.0**DIGITS
    return float(math.ceil(round(value * scale, 6)) / scale)


def _due(
    book: ParameterBook,
    calibration: Calibration,
    *,
    rows: Sequence[Mapping[str, Any]],
    closes: pd.DataFrame,
    policy: CalibrationPolicy,
) -> tuple[ProposalKind, str] | None:
    if calibration.is_requested:
        return ProposalKind.REQUESTED, f"asked for by {calibration.started_by}"
    left = [
        f"{row['parameter']} is {zone}, {judged.exceptions} of {judged.days} days"
        for row in rows
        for judged, zone in [light(row["parameter"], row["value_in_force"], policy=policy, closes=closes)]
        if zone not in ("green", "")
    ]
    waiting = {standing.proposal.kind for standing in book.waiting()}
    if left and ProposalKind.EVENT not in waiting:
        return ProposalKind.EVENT, "left green: " + "; ".join(left)
    day = calibration.business_date
    this_month = [
        standing
        for standing in book.standings.values()
        if standing.proposal.kind is ProposalKind.SCHEDULED
        and (standing.proposal.business_date.year, standing.proposal.business_date.month) == (day.year, day.month)
    ]
    return None if this_month else (ProposalKind.SCHEDULED, f"calibration of {day:%B %Y}")


def light(
    parameter: str, value: float, *, policy: CalibrationPolicy, closes: pd.DataFrame
) -> tuple[Any, str]:  # fmt: skip
    """Days and exceptions of a price range over the last :data:`JUDGED_DAYS` days, and its traffic light in words.

    Empty where there is no history, or the parameter is no price range.
    """
    _, underlying, kind = parameter.split(".")
    if kind != PRICE_RANGE or underlying not in closes:
        return moves_beyond(pd.Series(dtype="float64"), share=1.0, horizon=1), ""
    regime = policy.of(underlying).price
    series = closes[underlying].dropna()
    judged = moves_beyond(series, share=value, horizon=_horizon(regime.margin_period_days), days=JUDGED_DAYS)
    if judged.days == 0:
        return judged, ""
    zone = zones(
        np.array([judged.days]), np.array([judged.exceptions]), probability=1.0 - regime.confidence
    )  # fmt: skip
    return judged, str(zone[0]).lower()


def _judged(
    parameter: str, values: tuple[float, float], *, policy: CalibrationPolicy, closes: pd.DataFrame
) -> dict[str, int]:
    _, underlying, kind = parameter.split(".")
    if kind != PRICE_RANGE or underlying not in closes:
        return {}
    regime = policy.of(underlying).price
    horizon = _horizon(regime.margin_period_days)
    before, after = (moves_beyond(closes[underlying].dropna(), share=value, horizon=horizon) for value in values)
    return {"judged_days": before.days, "exceptions_before": before.exceptions, "exceptions_after": after.exceptions}


def _horizon(margin_period_days: float) -> int:
    """Daily closes cannot judge less than a day."""
    return max(1, math.ceil(margin_period_days))


def impact(here: Settings, proposal: Proposal, *, clearing_run_id: str, now: datetime) -> list[dict[str, Any]]:
    """What every account of a published run would have had to hold; accounts of other rulebooks stay as they are."""
    day = proposal.business_date
    with lake(here, holder=f"proposal {proposal.proposal_id}: read", is_read_only=True) as opened:
        before = opened.query(_IMPACT_BEFORE, [clearing_run_id]).to_pylist()
        feeds = {
            name: from_arrow(
                opened.run_rows(clearing_run_id, schema="raw", table=name).select(list(table.column_names)), table
            )
            for name, table in FEEDS.items()
        }
        quarantine = from_arrow(
            opened.run_rows(clearing_run_id, schema="raw", table="quarantine").select(
                list(VALIDATION["quarantine"].column_names)
            ),
            VALIDATION["quarantine"],
        )
        in_force = approved_versions(opened, business_date=day)
    with registry.approved(()):
        versions = {rulebook.rulebook_id: rulebook for rulebook in registry.rulebooks_in_force(day)}
    proposed = versions_with(proposal.set_values, business_date=day, effective_date=day, name="proposed")
    versions |= {version.rulebook_id: version for version in proposed}
    after: dict[str, Decimal] = {}
    with registry.approved(in_force):
        for rulebook_id in sorted({rulebook_of(change.parameter) for change in proposal.changes}):
            say(f"  impact on the accounts under {rulebook_id}", waiting_for="computing the impact on accounts")
            requirements = requirements_under(
                versions[rulebook_id], feeds, quarantine=quarantine, cutoff_at=session_cut_off(day, "EOD", None),
                business_date=day,
            )  # fmt: skip
            after |= dict(zip(requirements["account_id"], requirements["initial_margin"], strict=True))
    return [
        {
            "proposal_id": proposal.proposal_id,
            **row,
            "requirement_after": after.get(row["account_id"], row["requirement_before"]),
            "run_id": proposal.run_id,
            "business_date": day,
            "session": proposal.session,
            "recorded_at": now,
        }
        for row in before
    ]
