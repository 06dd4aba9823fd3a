"""What a margin notice states field by field: one list, from which page, letter, mail and table are filled."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.collateral.policy import CollateralPolicy, EligibleAsset, collateral_policy_in_force
from margin_tasks.contracts.call_vocabulary import CallState
from margin_tasks.reporting.amounts import (
    ZERO,
    as_utc,
    format_day,
    format_instant,
    format_money,
    format_percent,
    format_signed,
    round_cents,
    to_decimal,
    total,
)
from margin_tasks.reporting.context import ClearingHouseDetails, ReportContext
from margin_tasks.reporting.csv_text import guarded
from margin_tasks.reporting.frames import Record, clean_text
from margin_tasks.reporting.wording import (
    ANTI_PROCYCLICALITY_COMPONENTS,
    CALL_TRIGGERS,
    ORIGINS,
    component_name,
    component_rank,
    humanised,
    is_core,
)
from margin_tasks.rulebooks.registry import rulebook_in_force

NOT_STATED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ccp_lei": "no feed carries LEIs; house and member are named by the clearing house's own register",
        "member_lei": "no feed carries LEIs; house and member are named by the clearing house's own register",
        "sub_account": "accounts are not divided: the account is the margin account",
        "pending_out": "nothing is paid out before it has left the balances, so that there is none",
    }
)
"""Fields of the standard's list that a notice does not state, and why."""

_ROUNDING_WORDS = {"DRUP": "up", "DRDW": "down", "CLSR": "to the nearest", "NONE": "to what can be paid"}


_Money = Callable[..., "NoticeField"]


@dataclass(frozen=True, slots=True)
class NoticeField:
    """One field: its name in the standard's list, its name for people, ``text`` for people, ``value`` for programs."""

    name: str
    label: str
    text: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeIssue:
    """What only the record of calls knows of a call; the defaults are those of a call that was just computed.

    ``issued_at`` is naive UTC. A notice that the run itself writes is made before its call is issued. ``outstanding``
    is what is still open where money came or a part was withdrawn; ``file_stem`` names the files of a notice that is
    not the first of its call.
    """

    version: int = 1
    replaces: str | None = None
    issued_at: datetime | None = None
    status: CallState | None = None
    outstanding: Decimal | None = None
    file_stem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTermsOfDay:
    """Policies in force on the day of a notice, read once for all notices of a run."""

    calls: CallPolicy
    collateral: CollateralPolicy

    @classmethod
    def of(cls, business_date: date) -> CallTermsOfDay:
        """Terms of a business date."""
        return cls(calls=call_policy_in_force(business_date), collateral=collateral_policy_in_force(business_date))


def local_instant(instant: datetime, *, time_zone: str) -> str:
    """``Friday 6 February 2026, 11:00 in New York (UTC-05:00)``."""
    local = as_utc(instant).astimezone(ZoneInfo(time_zone))
    offset = f"{local:%z}"
    city = time_zone.rpartition("/")[2].replace("_", " ")
    return f"{format_day(local.date())}, {local:%H:%M} in {city} (UTC{offset[:3]}:{offset[3:]})"


def notice_fields(
    call: Record,
    *,
    margin: Record,
    account: Record,
    components: Sequence[Record],
    positions: Sequence[Record],
    collateral: Sequence[Record],
    change: Record | None,
    issue: NoticeIssue,
    terms: CallTermsOfDay,
    report_reference: str,
    context: ReportContext,
) -> tuple[NoticeField, ...]:
    """Every field of a notice, in the order of the standard's list; sums in it add up at the cent."""
    currency = clean_text(call["currency"])
    policy = terms.calls

    def money(name: str, label: str, amount: Decimal, note: str = "") -> NoticeField:
        cents = round_cents(amount)
        text = format_money(cents, currency) + (f", {note}" if note else "")
        return NoticeField(name, label, text, f"{cents:f}")

    def words(name: str, label: str, text: object, value: str | None = None) -> NoticeField:
        plain = clean_text(text)
        return NoticeField(name, label, plain, plain if value is None else value)

    def instant(name: str, label: str, at: datetime, note: str = "") -> NoticeField:
        return words(name, label, format_instant(at) + note, f"{as_utc(at):%Y-%m-%dT%H:%M:%SZ}")

    option_value = to_decimal(margin["net_option_value"])
    variation, premium, funding = (
        total(to_decimal(row[column]) for row in positions)
        for column in ("variation_margin", "premium_amount", "funding_amount")
    )
    pending = to_decimal(margin["pending_in"])
    called = to_decimal(call["call_amount"])
    balance = to_decimal(margin["equity"]) - to_decimal(margin["initial_margin"])
    local_due = local_instant(call["due_at"], time_zone=policy.settlement_bank.time_zone)
    rulebook = rulebook_in_force(str(margin["rulebook_id"]), business_date=context.business_date)
    trigger = _trigger(margin, change=change)
    house = context.clearing_house
    state = issue.status or CallState.ISSUED
    return (
        words("notice_id", "Notice", call["call_id"]),
        words(
            "version",
            "Version",
            f"{issue.version}" + (f", replaces {clean_text(issue.replaces)}" if issue.replaces else ""),
            f"{issue.version}",
        ),
        words("type", "Type", *_kind(call, session=context.session)),
        words("business_date", "Business date", format_day(context.business_date), context.business_date.isoformat()),
        words("issued_at", "Issued", "on delivery, once it is approved; the message beside this notice states it", "")
        if issue.issued_at is None
        else instant("issued_at", "Issued", issue.issued_at),
        instant("valuation_at", "Prices and positions at", context.cutoff_at),
        instant("due_at", "Due", call["due_at"]),
        words("due_at_local", "Due, local time of the settlement bank", local_due),
        words("member_mnemonic", "Member", call["member_id"]),
        words("account", "Account", call["account_id"]),
        words("origin", "Origin", ORIGINS.get(str(account["account_type"]), str(account["account_type"]))),
        words("currency", "Currency", currency),
        words("previous_requirement", "Requirement of the previous clearing day", "not available", "")
        if change is None
        else money(
            "previous_requirement",
            "Requirement of the previous clearing day",
            to_decimal(change["previous_initial_margin"]),
        ),
        *_requirement(components, requirement=to_decimal(margin["initial_margin"]), money=money),
        money(
            "net_option_value",
            "Net option value",
            option_value,
            "credit: it lowers what has to be covered" if option_value >= 0 else "debit: it adds to it",
        ),
        money("variation_margin", "Variation margin of the day", variation, _gain_words(variation)),
        money("option_premium", "Option premium of the day", premium, _gain_words(premium)),
        money("funding", "Funding of perpetuals", funding, _gain_words(funding)),
        *_collateral(collateral, margin=margin, money=money),
        money("pending_in", "Money on its way", pending, "not called again" if pending else ""),
        money("excess_or_deficit", "Excess, or deficit below zero", balance),
        money("threshold", "Threshold", policy.threshold),
        money("mta", "Minimum transfer amount", policy.minimum_transfer_amount),
        money("rounding", "Rounded to", policy.transfer_terms.rounding_unit),
        words("rounding_mode", "Rounding", _ROUNDING_WORDS[policy.rounding_mode], policy.rounding_mode),
        money("call_amount", "Amount called", called),
        money("outstanding", "Still to be delivered", called if issue.outstanding is None else issue.outstanding),
        words("eligible_assets_text", "What may be delivered", eligible_assets_text(terms.collateral)),
        words("settlement_instruction", "Where it is paid", settlement_instruction(house)),
        words("trigger", "Why the account is called", trigger[0], trigger[1]),
        *_drivers(change, currency=currency),
        words("report_reference", "Statement of the account", report_reference),
        words("contact", "Contact", f"{house.contact}, {house.contact_email}, {house.contact_phone}"),
        words(
            "status",
            "Status on delivery",
            f"{humanised(state.value.lower())}: a notice is delivered once its call is approved and issued"
            if issue.status is None
            else humanised(state.value.lower()),
            state.value,
        ),
        words("run_id", "Run", context.run_id),
        words("input_hash", "Hash of the inputs", context.input_hash or "not available", context.input_hash or ""),
        words("parameter_set_id", "Parameter set", context.parameter_set_id),
        words("model_version", "Model version", f"{rulebook.rulebook_id}-{rulebook.version}"),
    )


def fields_csv(fields: Sequence[NoticeField]) -> bytes:
    """UTF-8 CSV with one row for each field: name and value for programs."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(("field", "value"))
    rows.writerows((field.name, field.value if _is_figure(field.value) else guarded(field.value)) for field in fields)
    return text.getvalue().encode("utf-8")


def eligible_assets_text(policy: CollateralPolicy) -> str:
    """``USD, EUR (FX haircut 4 %), BTC (haircut from 10 %), ...``, as the collateral policy in force states them."""
    listed = ", ".join(_eligible_words(eligible, policy=policy) for eligible in policy.eligible_assets)
    return f"{listed}; concentration limits apply (policy {policy.id}-{policy.version})"


def settlement_instruction(house: ClearingHouseDetails) -> str:
    """Bank and account of the clearing house; of the account only the last four characters."""
    account = "".join(clean_text(house.settlement_account).split())
    return f"BIC {clean_text(house.settlement_bic)}, account {'*' * max(len(account) - 4, 4)}{account[-4:]}"


def _eligible_words(eligible: EligibleAsset, *, policy: CollateralPolicy) -> str:
    haircut = eligible.haircut
    terms = []
    if isinstance(haircut, Decimal):
        if haircut:
            terms.append(f"haircut {format_percent(haircut)}")
    elif haircut.kind == "tiered":
        terms.append(f"haircut from {format_percent(haircut.tiers[0].haircut)} by size")
    else:
        terms.append(f"haircut from {format_percent(haircut.floor)} by volatility and size")
    foreign = eligible.currency
    if foreign is not None and foreign != policy.currency:
        terms.append(f"FX haircut {format_percent(policy.fx_haircuts[foreign])}")
    return f"{clean_text(eligible.asset)} ({', '.join(terms)})" if terms else clean_text(eligible.asset)


def _kind(call: Record, *, session: str) -> tuple[str, str]:
    """Words and code of the type. Sessions within the day are numbered in advance: each is a scheduled one."""
    if session != "EOD":
        return f"intraday call of session {session}", "INTRADAY_SCHEDULED"
    if to_decimal(call["initial_call_amount"]):
        loss = " with the day's loss in it" if to_decimal(call["variation_call_amount"]) else ""
        return f"end of day, initial margin{loss}", "EOD_IM"
    return "end of day, variation margin", "EOD_VM"


def _requirement(components: Sequence[Record], *, requirement: Decimal, money: _Money) -> list[NoticeField]:
    """Core and add-ons separately; rounding to cents goes to the core, so that they are the requirement."""
    sums: dict[str, Decimal] = {}
    for row in components:
        sums[str(row["component"])] = sums.get(str(row["component"]), ZERO) + to_decimal(row["amount"])
    add_ons = {
        name: round_cents(sums[name]) for name in sorted(sums, key=component_rank) if sums[name] and not is_core(name)
    }
    core = round_cents(requirement) - total(add_ons.values())
    against_cycles = total(amount for name, amount in add_ons.items() if name in ANTI_PROCYCLICALITY_COMPONENTS)
    return [
        money("requirement_core", "Core requirement", core, ", ".join(_names(sums))),
        *(
            money(f"requirement_addons[{name}]", f"Add-on: {component_name(name).lower()}", amount)
            for name, amount in (add_ons or {"none": ZERO}).items()
        ),
        money("requirement_total", "Initial margin requirement", requirement),
        money("apc_component", "of which against procyclicality", against_cycles),
    ]


def _names(sums: Mapping[str, Decimal]) -> list[str]:
    return [component_name(name).lower() for name in sorted(sums, key=component_rank) if sums[name] and is_core(name)]


def _collateral(collateral: Sequence[Record], *, margin: Record, money: _Money) -> list[NoticeField]:
    market, concentration = (
        total(to_decimal(row[column]) for row in collateral) for column in ("market_value", "concentration_amount")
    )
    counted = to_decimal(margin["collateral_value"])
    after = round_cents(counted) + round_cents(concentration)
    return [
        money("collateral_market_value", "Collateral at market", market),
        money("collateral_post_haircut", "Collateral after haircuts", after),
        money("concentration_reduction", "less what concentration limits take", concentration),
        money("collateral_counted", "Collateral as it counts", counted),
    ]


def _trigger(margin: Record, *, change: Record | None) -> tuple[str, str]:
    """Words with the figure behind them, and code with it."""
    code = str(margin["call_trigger"] or "end_of_day")
    words = next((text for known, text in CALL_TRIGGERS.items() if known == code), humanised(code).lower())
    requirement, equity = to_decimal(margin["initial_margin"]), to_decimal(margin["equity"])
    text = value = ""
    if code == "requirement_above_collateral" and equity > 0:
        text, value = f"{format_percent(requirement / equity)} of equity", f"{requirement / equity:.4f}"
    elif code == "mark_to_market_loss":
        text, value = _figure(to_decimal(margin["settlement_amount"]))
    elif code in _EFFECTS and change is not None:
        text, value = _figure(to_decimal(change[_EFFECTS[code]]))
    elif code == "end_of_day":
        text, value = _figure(to_decimal(margin["equity"]) - requirement)
    return f"{words}: {text}" if text else words, f"{code}: {value}" if value else code


def _figure(amount: Decimal) -> tuple[str, str]:
    """A signed amount for people and for programs."""
    cents = round_cents(amount)
    return format_signed(cents), f"{cents:f}"


_EFFECTS = {"market_move": "market_effect", "position_growth": "trading_effect"}


def _drivers(change: Record | None, *, currency: str) -> list[NoticeField]:
    if change is None:
        return [NoticeField("drivers", "What moved the requirement", "not available", "")]
    return [
        NoticeField(
            f"drivers[{name}]",
            f"Requirement moved by {label}",
            f"{currency}\N{NO-BREAK SPACE}{format_signed(round_cents(to_decimal(change[column])))}",
            f"{round_cents(to_decimal(change[column])):f}",
        )
        for name, label, column in (
            ("prices", "prices, volatility and time", "market_effect"),
            ("positions", "trades of the day", "trading_effect"),
        )
    ]


def _gain_words(amount: Decimal) -> str:
    return "received by the member" if amount > 0 else "paid by the member" if amount < 0 else ""


def _is_figure(value: str) -> bool:
    return value.removeprefix("-").replace(".", "", 1).isdigit()
