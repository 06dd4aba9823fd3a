"""``margin validate``: pull and gate, nothing else, so that someone preparing feeds sees every broken promise."""

from __future__ import annotations

from typing import Any

import pandas as pd

from margin_tasks.pipeline.feed_source import feed_source, without_secret
from margin_tasks.pipeline.parameters import rulebook_ids
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import checked_business_date, checked_session, session_cut_off
from margin_tasks.sources.delivery import pull_feeds
from margin_tasks.validation import gate


def validate_feeds(*, business_date: str, session: str, source: str, cut_off: str | None) -> dict[str, Any]:
    """Return the verdict on a delivery: ``accepted``, ``quarantined_rows``, ``feeds[]`` and ``findings[]``.

    A feed that cannot be pulled is a finding like any other; the feeds that can be are checked all the same.

    Raises:
        MarginError: for a request that names no date, session or source.
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
        "findings": [
            {name: None if pd.isna(value) else value for name, value in finding.items()}
            for finding in result.findings.to_dict("records")
        ],
    }
