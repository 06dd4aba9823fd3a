"""Any valid message, for property tests."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

from hypothesis import strategies as st

from margin_tasks import messages as m

_CHARACTERS = st.characters(
    codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff", include_characters="\t\n\r"
)
ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def texts(longest: int) -> st.SearchStrategy[str]:
    return st.text(_CHARACTERS, min_size=1, max_size=longest)


def amounts(*, above_zero: bool = False) -> st.SearchStrategy[Decimal]:
    """Every amount of 18 digits and 5 decimals, in any of the forms that a decimal has."""
    whole = st.integers(1 if above_zero else 0, 10**18 - 1)
    scaled = st.builds(lambda units, places: Decimal(units).scaleb(-places), whole, st.integers(0, 5))
    return scaled.map(lambda amount: amount.normalize()) | scaled


def days() -> st.SearchStrategy[date]:
    return st.dates(date(1, 1, 2), date(9999, 12, 30))


def instants() -> st.SearchStrategy[datetime]:
    zones = st.sampled_from([None, UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-11, minutes=-30))])
    return st.datetimes(datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30"), timezones=zones)


def moments() -> st.SearchStrategy[date | datetime]:
    return days() | instants()


CURRENCIES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3)
REFERENCES = texts(35)
CODES = st.text(ALPHANUMERIC, min_size=4, max_size=4)
RATES = st.builds(lambda units: Decimal(units).scaleb(-10), st.integers(0, 10**11 - 1))


@st.composite
def leis(draw: st.DrawFn) -> str:
    body = draw(st.text(ALPHANUMERIC, min_size=18, max_size=18))
    digits = int("".join(str(int(character, 36)) for character in body + "00"))
    return f"{body}{98 - digits % 97:02d}"


# The form that both generations of the BIC pattern allow.
BICS = st.from_regex(r"[A-Z]{6}[A-Z2-9][A-NP-Z0-9]([A-Z0-9]{3})?", fullmatch=True)


def parties(*, with_scheme: bool = True) -> st.SearchStrategy[m.Party]:
    issued = st.builds(
        m.Party,
        identifier=REFERENCES,
        issuer=REFERENCES.filter(lambda issuer: issuer != "LEI"),
        scheme=st.none() | REFERENCES if with_scheme else st.none(),
    )
    return st.builds(m.Party, bic=BICS) | st.builds(m.Party, lei=leis()) | issued


MONEY = st.builds(m.Money, amounts(), CURRENCIES)


@st.composite
def obligations(draw: st.DrawFn) -> m.Obligation:
    account = draw(st.none() | REFERENCES)
    return m.Obligation(
        party_a=draw(parties()),
        party_b=draw(parties()),
        valued_at=draw(moments()),
        collateral_account_id=account,
        collateral_account_type=draw(st.none() | st.sampled_from(m.CollateralAccountType)) if account else None,
        exposure_type=draw(st.none() | st.sampled_from(["FUTR", "OPTN", "CCPC", "OTCD"])),
    )


AGREEMENTS = st.builds(
    m.MarginAgreement,
    details=texts(140),
    agreed_on=days(),
    base_currency=CURRENCIES,
    identifier=st.none() | texts(140),
    framework=st.none() | st.sampled_from(["DERV", "ISDA", "NONR"]),
)
TERMS = st.builds(
    m.MarginTerms,
    threshold=amounts(),
    minimum_transfer_amount=amounts(),
    rounding_amount=amounts(),
    rounding_method=st.sampled_from(m.RoundingMethod),
)
DETAILS = st.builds(
    m.CallDetails,
    call_id=texts(140),
    due_at=instants(),
    issued_at=instants(),
    version=st.integers(1, 999_999_999),
)

REQUESTS = st.builds(
    m.MarginCallRequest,
    details=DETAILS,
    obligation=obligations(),
    currency=CURRENCIES,
    variation_amount=amounts(),
    initial_amount=amounts(above_zero=True),
    default_fund_amount=st.none() | amounts(),
    variation_note=st.none() | texts(210),
    initial_note=st.none() | texts(210),
    agreement=st.none() | AGREEMENTS,
    exposed_amount=st.none() | amounts(),
    exposure_convention=st.none() | st.sampled_from(["GROS", "NET1"]),
    terms=st.none() | TERMS,
    collateral_balance=st.none() | amounts(),
)


def _either(part: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Variation part, initial part, or both."""
    return st.one_of(
        st.fixed_dictionaries({"variation": part}),
        st.fixed_dictionaries({"initial": part}),
        st.fixed_dictionaries({"variation": part, "initial": part}),
    )


def _reasons(codes: list[str]) -> st.SearchStrategy[tuple[m.ReasonCode, ...]]:
    code = st.builds(m.ReasonCode, st.sampled_from(codes)) | st.builds(m.ReasonCode, CODES, REFERENCES)
    return st.lists(code, max_size=3).map(tuple)


@st.composite
def responses(draw: st.DrawFn) -> m.MarginCallResponse:
    reference = draw(REFERENCES)
    reasons = draw(_reasons(["NVDA", "RANT"]))
    agreed = st.builds(m.AgreedAmount, amount=amounts(), call_reference=st.just(reference), note=st.none() | texts(210))
    parts = {} if reasons and draw(st.booleans()) else draw(_either(agreed))
    return m.MarginCallResponse(
        transaction_id=draw(REFERENCES),
        obligation=draw(obligations()),
        currency=draw(CURRENCIES) if parts else None,
        reasons=reasons,
        description=draw(st.none() | texts(140)) if reasons else None,
        **parts,
    )


QUANTITIES = st.integers(0, 10**18 - 1).map(lambda units: Decimal(units).scaleb(-5))
CASH = st.builds(
    m.CashItem,
    collateral_value=MONEY,
    collateral_id=st.none() | REFERENCES,
    account=st.none() | texts(34) | st.just("GB33BUKB20201555555555"),
    deposit=st.none() | MONEY,
    deposit_type=st.none() | st.sampled_from(["FITE", "CALL"]),
    matures_on=st.none() | days(),
    value_date=st.none() | days(),
    exchange_rate=st.none() | RATES,
    haircut=st.none() | RATES,
)


@st.composite
def securities(draw: st.DrawFn) -> m.SecuritiesItem:
    isin = draw(st.none() | st.from_regex(r"[A-Z]{2}[A-Z0-9]{9}[0-9]", fullmatch=True))
    is_abroad = draw(st.booleans())
    return m.SecuritiesItem(
        quantity=draw(QUANTITIES),
        quantity_type=draw(st.sampled_from(m.QuantityType)),
        collateral_id=draw(st.none() | REFERENCES),
        isin=isin,
        description=draw(texts(140)) if isin is None else draw(st.none() | texts(140)),
        matures_on=draw(st.none() | moments()),
        market_value=draw(st.none() | MONEY),
        haircut=draw(st.none() | RATES),
        collateral_value=draw(st.none() | MONEY),
        value_date=draw(st.none() | days()),
        safekeeping_country=draw(st.sampled_from(["US", "DE"])) if is_abroad else None,
        safekeeping_type=None if is_abroad else draw(st.sampled_from(["CUST", "ICSD", "NCSD"])),
        safekeeping_bic=None if is_abroad else draw(BICS),
        safekeeping_account=draw(st.none() | REFERENCES),
    )


@st.composite
def other_items(draw: st.DrawFn) -> m.OtherItem:
    description = draw(st.none() | texts(140))
    has_quantity = description is not None
    return m.OtherItem(
        collateral_value=draw(MONEY),
        collateral_id=draw(st.none() | REFERENCES),
        letter_of_credit_id=draw(st.none() | REFERENCES),
        letter_of_credit_amount=draw(st.none() | MONEY),
        description=description,
        quantity=draw(QUANTITIES) if has_quantity else None,
        quantity_type=draw(st.sampled_from(m.QuantityType)) if has_quantity else None,
        wallet=draw(st.none() | texts(140)),
        value_date=draw(st.none() | days()),
        exchange_rate=draw(st.none() | RATES),
        market_value=draw(st.none() | MONEY),
        haircut=draw(st.none() | RATES),
    )


@st.composite
def deliveries(draw: st.DrawFn, *, reference: str) -> m.ProposedDelivery:
    return m.ProposedDelivery(
        call_reference=reference,
        response_reference=draw(st.none() | REFERENCES),
        settlement_instruction=draw(st.none() | texts(140)),
        cash=tuple(draw(st.lists(CASH, min_size=1, max_size=2))),
        securities=tuple(draw(st.lists(securities(), max_size=2))),
        other=tuple(draw(st.lists(other_items(), max_size=2))),
    )


@st.composite
def proposals(draw: st.DrawFn) -> m.CollateralProposal:
    movement = st.builds(
        m.ProposedMovement,
        agreed_amount=amounts(),
        deliveries=st.lists(deliveries(reference=draw(REFERENCES)), min_size=1, max_size=2).map(tuple),
    )
    return m.CollateralProposal(
        transaction_id=draw(REFERENCES),
        obligation=draw(obligations()),
        proposal_type=draw(st.sampled_from(m.ProposalType)),
        currency=draw(CURRENCIES),
        **draw(_either(movement)),
    )


@st.composite
def verdicts(draw: st.DrawFn) -> m.ItemVerdict:
    status = draw(st.sampled_from(m.ItemStatus))
    return m.ItemVerdict(
        status=status,
        collateral_id=draw(st.none() | REFERENCES),
        asset_number=draw(st.none() | REFERENCES),
        rejection_reason=draw(st.sampled_from(["DSEC", "ICOL", "OTHR"])) if status is m.ItemStatus.REJECTED else None,
        rejection_note=draw(st.none() | REFERENCES),
    )


PROPOSAL_RESPONSES = st.builds(
    lambda parts, **fields: m.ProposalResponse(**fields, **parts),
    _either(
        st.builds(
            m.ProposalVerdict,
            proposal_id=REFERENCES,
            answers=st.sampled_from(m.AnsweredProposal),
            securities=st.lists(verdicts(), max_size=2).map(tuple),
            cash=st.lists(verdicts(), min_size=1, max_size=2).map(tuple),
            other=st.lists(verdicts(), max_size=2).map(tuple),
        )
    ),
    transaction_id=REFERENCES,
    obligation=obligations(),
)


@st.composite
def disputes(draw: st.DrawFn) -> m.DisputeNotification:
    dispute = st.builds(
        m.Dispute,
        call_reference=st.just(draw(REFERENCES)),
        disputed_amount=amounts(above_zero=True),
        disputed_on=days(),
        reasons=_reasons(["RECO", "RMTA", "RERO", "REVF"]),
    )
    return m.DisputeNotification(
        transaction_id=draw(REFERENCES),
        obligation=draw(obligations()),
        currency=draw(CURRENCIES),
        **draw(_either(dispute)),
    )


@st.composite
def collateral(draw: st.DrawFn, *, kinds: list[m.CollateralType]) -> m.CollateralOnDeposit:
    values = sorted([draw(amounts()), draw(amounts())])
    return m.CollateralOnDeposit(
        value_after_haircut=values[0], market_value=values[1], collateral_type=draw(st.sampled_from(kinds))
    )


@st.composite
def calculations(draw: st.DrawFn, *, is_summary: bool) -> m.MarginCalculation:
    result = draw(st.sampled_from(["excess", "deficit", None]))
    initial = None if is_summary else draw(st.none() | amounts())
    other = st.builds(
        m.OtherMargin,
        margin_type=st.builds(m.ReasonCode, st.sampled_from(["VAMA", "ADFM"]))
        | st.builds(m.ReasonCode, CODES, REFERENCES),
        amount=amounts(),
        side=st.none() | st.sampled_from(m.Side),
    )
    return m.MarginCalculation(
        total_margin=draw(amounts()),
        side=draw(st.none() | st.sampled_from(m.Side)),
        collateral=tuple(draw(st.lists(collateral(kinds=list(m.CollateralType)), max_size=2))),
        minimum_requirement=draw(st.none() | amounts()),
        initial_margin=initial,
        initial_margin_original=None if initial is None else draw(st.none() | MONEY),
        other_margins=() if is_summary else tuple(draw(st.lists(other, max_size=2))),
        **({result: draw(amounts())} if result else {}),
    )


@st.composite
def margin_reports(draw: st.DrawFn) -> m.MarginReport:
    account = st.builds(
        m.AccountMargin,
        account_id=REFERENCES,
        account_type=st.sampled_from(m.ClearingAccountType),
        calculations=st.lists(calculations(is_summary=False), min_size=1, max_size=2).map(tuple),
        account_name=st.none() | texts(70),
        is_collateralised=st.none() | st.booleans(),
        summary=st.none() | calculations(is_summary=True),
    )
    return m.MarginReport(
        report_id=draw(REFERENCES),
        reported_at=draw(moments()),
        currency=draw(CURRENCIES),
        calculated_at=draw(instants()),
        frequency=draw(st.sampled_from(m.ReportFrequency)),
        member=draw(parties()),
        accounts=tuple(draw(st.lists(account, min_size=1, max_size=2))),
        # The summary of all pages stands on a page that is not the only one.
        summary=draw(st.none() | calculations(is_summary=True)),
        report_number=draw(st.none() | st.from_regex(r"[0-9]{5}", fullmatch=True)),
        page_number=draw(st.integers(2, 99_999)),
        is_last_page=draw(st.booleans()),
    )


@st.composite
def default_fund_reports(draw: st.DrawFn) -> m.DefaultFundReport:
    contribution = st.builds(
        m.FundContribution,
        required_amount=amounts(),
        account=st.none() | texts(34),
        increased_cover=st.none() | amounts(),
    )
    fund = st.builds(
        m.DefaultFund,
        account=texts(34),
        total_amount=amounts(),
        contributions=st.lists(contribution, max_size=2).map(tuple),
        increased_cover=st.none() | amounts(),
    )
    kinds = [m.CollateralType.CASH, m.CollateralType.SECURITIES]
    statement = st.builds(
        m.FundStatement,
        funds=st.lists(fund, min_size=1, max_size=2).map(tuple),
        collateral=st.lists(collateral(kinds=kinds), min_size=1, max_size=2).map(tuple),
        net_amount=amounts(),
        side=st.sampled_from(m.Side),
    )
    return m.DefaultFundReport(
        report_id=draw(REFERENCES),
        reported_at=draw(moments()),
        frequency=draw(st.sampled_from(m.ReportFrequency)),
        currency=draw(CURRENCIES),
        member=draw(parties()),
        statements=tuple(draw(st.lists(statement, min_size=1, max_size=2))),
        calculated_at=draw(st.none() | instants()),
    )


HEADERS = st.builds(
    m.BusinessHeader,
    sender=parties(with_scheme=False),
    receiver=parties(with_scheme=False),
    message_id=REFERENCES,
    created_at=instants(),
    business_service=st.none() | REFERENCES,
    is_possible_duplicate=st.none() | st.booleans(),
)

MESSAGES = {
    m.MarginCallRequest: REQUESTS,
    m.MarginCallResponse: responses(),
    m.CollateralProposal: proposals(),
    m.ProposalResponse: PROPOSAL_RESPONSES,
    m.DisputeNotification: disputes(),
    m.MarginReport: margin_reports(),
    m.DefaultFundReport: default_fund_reports(),
}
