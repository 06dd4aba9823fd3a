"""The gate: raw text deliveries in, typed feeds out, and every broken promise named on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.rules import QUARANTINE_LIMIT, RULES
from margin_tasks.contracts.tables import FEEDS, FEEDS_THAT_MAY_BE_EMPTY
from margin_tasks.sources.delivery import FeedDelivery
from margin_tasks.validation.findings import DeliveredFeed, Ledger
from margin_tasks.validation.reconciliation import check_between_feeds, flagged_accounts

_FALLBACK_RULE = "held_without_price"


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Verdict on the deliveries of one business date.

    Attributes:
        frames: typed feeds by name, accepted and implied rows, sorted by key; a feed that was refused as a whole is
            absent.
        findings: every broken rule (table ``findings``).
        quarantine: rows set aside, each once, under the first rule it broke (table ``quarantine``). Every delivered
            row of a feed in ``frames`` is either there or here; a position that the others imply (rule
            ``position_implied``) is there beside its delivered row here.
        refusal: the first break that refuses the run; None when figures may be computed.
        flagged_accounts: accounts to be margined conservatively, sorted.
    """

    frames: dict[str, pd.DataFrame]
    findings: pd.DataFrame
    quarantine: pd.DataFrame
    refusal: MarginError | None
    flagged_accounts: tuple[str, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether figures may be computed."""
        return self.refusal is None

    def failure(self) -> MarginError:
        """The error with which a refused run ends.

        Raises:
            ValueError: the deliveries were accepted.
        """
        if self.refusal is None:
            raise ValueError("the deliveries were accepted: there is no failure")
        return self.refusal


def gate(
    deliveries: Mapping[str, FeedDelivery],
    *,
    business_date: date,
    cutoff_at: datetime,
    failures: Mapping[str, MarginError] | None = None,
    rulebook_ids: Collection[str] | None = None,
) -> GateResult:
    """Hold the deliveries of a business date against the contracts and against each other.

    Args:
        deliveries: pulled feeds by name.
        business_date: the clearing day.
        cutoff_at: naive UTC instant of the valuation.
        failures: why a feed could not be pulled, by name; a feed in neither mapping counts as missing.
        rulebook_ids: margin methodologies in force; None leaves the accounts' rulebooks unchecked.

    Returns:
        The verdict. Text of any content leads to findings, never to an exception.
    """
    # Great Expectations takes seconds to import and is needed by no one who only wants the result types.
    from margin_tasks.validation.cells import check_feed

    ledger = Ledger()
    feeds: dict[str, DeliveredFeed] = {}
    for name in FEEDS:
        if name not in deliveries:
            _refuse_undelivered(name, (failures or {}).get(name), ledger)
            continue
        feeds[name] = DeliveredFeed(deliveries[name])
        check_feed(feeds[name], ledger, business_date=business_date)
    check_between_feeds(feeds, ledger, business_date=business_date, cutoff_at=cutoff_at, rulebook_ids=rulebook_ids)
    for feed in feeds.values():
        _check_what_is_left(feed, ledger)
    findings, quarantine = ledger.findings_frame(), ledger.quarantine_frame()
    unpriced = sorted(set(findings.loc[findings["rule"] == _FALLBACK_RULE, "value"]))
    return GateResult(
        frames={name: _typed(feed) for name, feed in feeds.items() if feed.is_usable},
        findings=findings,
        quarantine=quarantine,
        refusal=ledger.first_failure(),
        flagged_accounts=flagged_accounts(feeds, quarantine, unpriced),
    )


def _refuse_undelivered(name: str, failure: MarginError | None, ledger: Ledger) -> None:
    reason = FailureReason.FEED_MISSING if failure is None else failure.reason
    message = f"feed {name} was not delivered; deliver it" if failure is None else failure.message
    rules = {rule.reason: rule for rule in RULES.values() if rule.reason is not None and name in rule.feeds}
    rule = rules.get(reason, RULES["file_unreadable"])
    ledger.record_feed(name, rule.name, message, file=name)


def _check_what_is_left(feed: DeliveredFeed, ledger: Ledger) -> None:
    if not feed.is_usable:
        return
    delivered = feed.delivery.row_count
    set_aside = int(feed.is_set_aside.sum()) + len(feed.delivery.problems)
    faults = ledger.own_faults(feed.name)
    if faults > max(1, QUARANTINE_LIMIT * delivered):
        rule, count, example = ledger.most_frequent_cause(feed.name)
        ledger.record_feed(
            feed.name,
            "quarantine_limit",
            f"{faults} of {delivered} rows ({faults / delivered:.1%}) were set aside, {count} of them for {rule} "
            f"({example}); more than {QUARANTINE_LIMIT:.0%} is too much to compute on",
            file=feed.delivery.location,
            value=faults,
        )
    if delivered and set_aside == delivered and feed.name not in FEEDS_THAT_MAY_BE_EMPTY:
        ledger.record_feed(
            feed.name,
            "feed_empty",
            "every row was set aside, none is left; correct the feed and deliver it again",
            file=feed.delivery.location,
        )


def _typed(feed: DeliveredFeed) -> pd.DataFrame:
    return feed.counted.sort_values(list(FEEDS[feed.name].key), kind="stable", ignore_index=True)
