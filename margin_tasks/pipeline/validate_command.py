"""``margin validate``: pull and check, nothing else, so that someone preparing feeds sees every broken promise."""

from __future__ import annotations

from typing import Any

import pandas as pd

from margin_tasks.contracts.rules import RULES, Action
from margin_tasks.pipeline.day_before import breaks_with_the_day_before
from margin_tasks.pipeline.feed_source import feed_source, without_secret
from margin_tasks.pipeline.parameters import rulebook_ids
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import checked_business_date, checked_session, session_cut_off
from margin_tasks.pipeline.settings import Settings
from margin_tasks.sources.delivery import pull_feeds
from margin_tasks.validation import gate

NOT_ASKED = "not checked: --home names the lake that holds the day before"
NOT_ACCEPTED = "not checked: the delivery is refused"
NO_DAY_BEFORE = "not checked: no run of the day before is published there"
CHECKED = "checked"


def validate_feeds(
    *, business_date: str, session: str, source: str, cut_off: str | None, day_before: Settings | None = None
) -> dict[str, Any]:
    """Return the verdict on a delivery: ``accepted``, ``quarantined_rows``, ``feeds[]`` and ``findings[]``.

    A feed that cannot be pulled is a finding like any other; the feeds that can be are checked all the same. Findings
    that refuse the delivery come first, those that only follow from others last; ``continuity`` says whether the feeds
    were held against the day before.

    Args:
        business_date: the clearing day.
        session: EOD or ITD-nn.
        source: where the feeds are pulled from.
        cut_off: HH:MM in UTC; None for that of the session.
        day_before: settings of the home whose published day before an accepted delivery has to carry on from.

    Raises:
        MarginError: for a request that names no date, session or source, or a day that the source does not have.
    """
    day = checked_business_date(business_date)
    opened = feed_source(without_secret(source))
    pulled = pull_feeds(
        opened,
        business_date=day,
        session=checked_session(session),
        on_feed=lambda feed: say(f"pull {feed}", waiting_for=f"pulling {feed}"),
    )
    say("gate", waiting_for="checking the feeds against their contracts")
    result = gate(
        pulled.deliveries,
        business_date=day,
        cutoff_at=session_cut_off(day, session, cut_off),
        failures=pulled.failures,
        rulebook_ids=rulebook_ids(day),
    )
    findings, continuity = result.findings, NOT_ASKED if day_before is None else NOT_ACCEPTED
    if day_before is not None and result.is_accepted:
        say("continuity", waiting_for="comparing with the day before")
        breaks = breaks_with_the_day_before(
            day_before, result.frames, business_date=day, holder="validate", is_read_only=True
        )
        continuity = NO_DAY_BEFORE if breaks is None else CHECKED
        findings = findings if breaks is None else pd.concat([findings, breaks], ignore_index=True)
    return {
        "accepted": result.is_accepted,
        "business_date": day.isoformat(),
        "session": session,
        "source": opened.spec,
        "quarantined_rows": len(result.quarantine),
        "flagged_accounts": list(result.flagged_accounts),
        "feeds": [
            {
                "feed": delivery.feed,
                "location": delivery.location,
                "sha256": delivery.sha256,
                "rows": delivery.row_count,
                "accepted_rows": len(result.frames[delivery.feed]) if delivery.feed in result.frames else 0,
            }
            for delivery in pulled.deliveries.values()
        ],
        "continuity": continuity,
        "findings": sorted(
            (
                {str(name): None if pd.isna(value) else value for name, value in finding.items()}
                for finding in findings.to_dict("records")
            ),
            key=_rank,
        ),
    }


def _rank(finding: dict[str, Any]) -> tuple[bool, int]:
    """What refuses the delivery first, then what sets rows aside, then what is only reported; consequences last."""
    return is_consequence(finding), list(Action).index(Action(finding["action"]))


def is_consequence(finding: dict[str, Any]) -> bool:
    """Whether a finding would not be there without another one."""
    return RULES[finding["rule"]].is_consequence
