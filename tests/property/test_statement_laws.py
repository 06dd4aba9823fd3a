"""Laws of statements: figures that belong together always give blocks that add up to the cent, and a valid message."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from margin_tasks import messages as m
from margin_tasks.pipeline.statements import margin_report
from tests.statement_books import CONTEXT, Book, Holding
from tests.unit.test_reporting_statement import adds_up

AMOUNTS = st.decimals(-(10**9), 10**9, places=8)
POSITIVE = st.decimals(0, 10**9, places=8)
QUANTITIES = st.decimals(-(10**6), 10**6, places=8)
SHARES = st.decimals(0, 1, places=4)


@st.composite
def holdings(draw: st.DrawFn) -> list[Holding]:
    found = []
    for asset in draw(st.lists(st.sampled_from(["BTC", "ETH", "EUR", "USD", "XAUX"]), unique=True, max_size=4)):
        places = draw(st.dictionaries(st.sampled_from(["COLD", "HOT", "BANK"]), QUANTITIES, min_size=1))
        whole = sum(places.values())
        is_held = whole > 0
        price = draw(st.decimals("0.01", 10**5, places=2))
        haircut, fx = (draw(SHARES) if is_held else Decimal(0) for _ in range(2))
        kept = max(whole * price * (1 - haircut) * (1 - fx), Decimal(0))
        cut = min((draw(SHARES) * kept).quantize(Decimal("1E-8")), kept)
        found.append(Holding(asset, places, price, haircut, fx, cut, before=draw(QUANTITIES)))
    return found


BOOKS = st.builds(
    Book,
    components=st.dictionaries(
        st.tuples(
            st.sampled_from(["BTC", "ETH", "GOLD"]), st.sampled_from(["scan_risk", "buffer", "liquidity", "unheard_of"])
        ),
        POSITIVE,
        max_size=10,
    ),
    holdings=holdings(),
    net_option_value=AMOUNTS,
    variation_margin=AMOUNTS,
    premium=AMOUNTS,
    funding=AMOUNTS,
    previous_requirement=POSITIVE,
    trading_effect=AMOUNTS,
    pending=POSITIVE,
    previous=st.none() | st.tuples(AMOUNTS, AMOUNTS, AMOUNTS),
    decision=st.just("below_minimum_transfer"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(book=BOOKS)
def test_figures_that_belong_together_give_blocks_that_add_up(book: Book) -> None:
    for block in book.statement().content.blocks:
        assert adds_up(block), block


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(book=BOOKS)
def test_the_message_adds_up_and_says_what_the_page_says(book: Book) -> None:
    statement = book.statement()
    report = m.parse(margin_report(statement, CONTEXT))
    assert isinstance(report, m.MarginReport)
    [account] = report.accounts
    [calculation] = account.calculations
    signed = [-part.amount if part.side is m.Side.CREDIT else part.amount for part in calculation.other_margins]
    assert (calculation.initial_margin or Decimal(0)) + sum(signed) == calculation.signed_total
    posted = sum((deposit.value_after_haircut for deposit in calculation.collateral), Decimal(0))
    result = calculation.excess if calculation.deficit is None else -calculation.deficit
    assert posted - calculation.signed_total == result == statement.figures.balance
