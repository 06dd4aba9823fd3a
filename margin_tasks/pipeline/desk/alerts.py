"""Alarms of the desk: one file for each, in the home and in the log of whoever raises it.

```
<home>/alerts/<day>/<name>.txt      what is wrong, and since when; whatever watches the folder calls the desk
```
"""

from __future__ import annotations

import logging
import re
from datetime import date, datetime, timedelta
from pathlib import Path

from margin_tasks.contracts.failures import MarginError
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import whole_file

_LOG = logging.getLogger(__name__)

STILL_OF_CONCERN = timedelta(days=4)
"""So many days after a business date its calls may still wait without being of the past: a long weekend."""

_PUBLISHED = "select count(*) from audit.runs where status = 'published' and business_date = $1 and session = $2"
_WAITING = """
select call_id from calls.current_calls
where call_state = 'COMPUTED' and approval_reason is not null and business_date = $1 and session = $2
order by call_id
"""


def raise_alert(here: Settings, *, name: str, text: str, now: datetime) -> Path:
    """Write an alarm; the same one again on the same day replaces it, so that it is one alarm."""
    path = here.home / "alerts" / now.date().isoformat() / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(f"{now:%Y-%m-%d %H:%M:%S} UTC\n{text}\n", encoding="utf-8")
    _LOG.error("%s (%s)", text, path)
    return path


def figures_are_late(here: Settings, *, business_date: date, session: str, due_at: datetime, now: datetime) -> bool:
    """Raise the alarm when a day has no published figures at its deadline; True when it was raised.

    A lake that cannot be asked is no excuse: the alarm is raised then too.
    """
    if _count(here, _PUBLISHED, business_date, session) not in (None, 0):
        return False
    text = (
        f"the figures of {business_date} {session} were due at {due_at:%Y-%m-%d %H:%M} UTC and are not published; "
        "margin show runs, and the failed task in Airflow, say why"
    )
    raise_alert(here, name=f"figures-late-{business_date}-{session}", text=text, now=now)
    return True


def approvals_are_late(here: Settings, *, business_date: date, session: str, due_at: datetime, now: datetime) -> bool:
    """Raise the alarm when calls of a day still wait for a person at the deadline; True when it was raised."""
    if now.date() - business_date > STILL_OF_CONCERN:
        return False
    waiting = _names(here, _WAITING, business_date, session)
    if waiting == []:
        return False
    which = "calls" if waiting is None else f"{len(waiting)} calls ({', '.join(waiting[:10])})"
    text = (
        f"{which} of {business_date} {session} still wait for approval, which was due by {due_at:%Y-%m-%d %H:%M} UTC; "
        "answer them under Required Actions of the DAG call_approval"
    )
    raise_alert(here, name=f"approvals-late-{business_date}-{session}", text=text, now=now)
    return True


def _names(here: Settings, sql: str, business_date: date, session: str) -> list[str] | None:
    """Return the first column of an answer of the lake; None when the lake could not be asked."""
    from margin_tasks.pipeline.lake_access import lake

    try:
        with lake(here, holder="alarm", is_read_only=True) as opened:
            return [str(value) for value in opened.query(sql, [business_date, session]).column(0).to_pylist()]
    except MarginError as error:
        _LOG.warning("the lake could not be asked: %s", error)
        return None


def _count(here: Settings, sql: str, business_date: date, session: str) -> int | None:
    found = _names(here, sql, business_date, session)
    return None if found is None else int(found[0])
