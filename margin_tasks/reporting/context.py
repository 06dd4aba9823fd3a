"""What every document states about itself: the run behind its figures and the clearing house that issues it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from margin_tasks.contracts.failures import MarginError


class ReportInputError(MarginError):
    """Figures that no honest document can be made of: a column is missing, or parts do not add up to their total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClearingHouseDetails:
    """Who issues the documents and whom a member asks. Comes from the settings; the defaults are placeholders.

    ``sender_email`` is the address notices are sent from; its domain also makes the Message-ID. Documents show of
    ``settlement_account`` the last four characters only.
    """

    name: str = "Clearing House (sample)"
    contact: str = "Margin operations desk"
    sender_email: str = "margin@clearing.example"
    contact_email: str = "margin-desk@clearing.example"
    contact_phone: str = "+00 0000 000000"
    settlement_bic: str = "SAMPUS33XXX"
    settlement_account: str = "000000000000"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportContext:
    """Identity of the run that a document reports.

    Instants are UTC: naive ones are taken as UTC already. The document's own date is ``cutoff_at``, so that
    rendering again gives the same bytes.
    """

    run_id: str
    business_date: date
    session: str
    cutoff_at: datetime
    as_known_at: datetime
    code_commit: str
    parameter_set_id: str
    content_hash: str | None = None
    lock_hash: str | None = None
    source_spec: str | None = None
    input_hash: str | None = None
    clearing_house: ClearingHouseDetails = ClearingHouseDetails()
