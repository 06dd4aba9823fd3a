"""Laws of the SPAN requirement: netting, order, scale, floors, and that portfolios do not see each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.rulebooks.span.columns import SpanParameters
from margin_tasks.rulebooks.span.parameters import (
    CombinedCommodity,
    DeliveryCharge,
    InterLeg,
    InterSpread,
    IntraLeg,
    IntraSpread,
    PriceRiskMethod,
    ShortOptionTier,
)
from margin_tasks.rulebooks.span.requirement import SpanRequirement
from tests.span_book import future, margin, option, parameters

MONTHS = ("202603", "202606", "202609")


def day() -> SpanParameters:
    """Two commodities with futures of three months and options, spreads of every kind, and a minimum."""
    generator = np.random.default_rng(20160517)
    rows, commodities = [], []
    for code, scan_range in (("C", 10.0), ("D", 32.0)):
        rows += [future(code, month, scan_range + number) for number, month in enumerate(MONTHS)]
        for right, sign in (("C", 1.0), ("P", -1.0)):
            array = generator.normal(scale=scan_range / 2.0, size=16).round(4)
            rows.append(option(code, MONTHS[0], right, array=array, delta=sign * 0.4, value=scan_range / 4.0))
        commodities.append(
            CombinedCommodity(
                code=code,
                currency="USD",
                price_risk_method=PriceRiskMethod.SCANRANGE_CAP,
                short_option_tiers=[ShortOptionTier(tier=0, rate=0.5)],
                intra_spreads=[
                    IntraSpread(
                        priority=1,
                        rate=3.0,
                        legs=[
                            IntraLeg(side="A", ratio=1.0, period=MONTHS[0]),
                            IntraLeg(side="B", ratio=2.0, period=MONTHS[1]),
                        ],
                    ),
                    IntraSpread(
                        priority=2,
                        rate=4.0,
                        legs=[IntraLeg(side="A", ratio=1.0, tier=0), IntraLeg(side="B", ratio=1.0, tier=0)],
                    ),
                ],
                delivery=[DeliveryCharge(period=MONTHS[0], in_spread=0.25, outright=1.0)],
                adjustment="1.25",
            )
        )
    legs = [
        InterLeg(combined_commodity="C", side="A", ratio=3.0),
        InterLeg(combined_commodity="D", side="B", ratio=1.0),
    ]
    return parameters(rows, commodities, inter_spreads=[InterSpread(priority=1, rate=0.6, legs=legs)])


DAY = day()
NAMES = tuple(DAY.contracts.contract_id)
BOOKS = st.dictionaries(st.sampled_from(NAMES), st.integers(-50, 50), max_size=len(NAMES))


def figures(result: SpanRequirement) -> dict[str, list[float]]:
    totals = result.portfolios
    return {name: getattr(totals, name).tolist() for name in totals.__dataclass_fields__}


@given(BOOKS)
def test_book_and_its_offset_owe_nothing(book):
    both = [*book.items(), *((name, -quantity) for name, quantity in book.items())]
    result = margin({"a": both}, DAY)
    assert len(result.commodities.scan) == 0
    assert not any(any(values) for values in figures(result).values())


@given(BOOKS, st.randoms(use_true_random=False))
def test_order_and_splitting_of_positions_do_not_matter(book, random):
    halves = [(name, quantity - 7) for name, quantity in book.items()] + [(name, 7) for name in book]
    random.shuffle(halves)
    assert figures(margin({"a": halves}, DAY)) == figures(margin({"a": book}, DAY))


@given(st.lists(BOOKS, min_size=1, max_size=6))
def test_portfolios_margined_together_owe_what_each_owes_alone(books):
    together = figures(margin({str(number): book for number, book in enumerate(books)}, DAY))
    for number, book in enumerate(books):
        alone = figures(margin({"a": book}, DAY))
        assert {name: values[number] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }


@given(BOOKS, st.sampled_from([2, 4, 0.5]))
def test_requirement_grows_in_proportion_to_the_book(book, factor):
    once = figures(margin({"a": book}, DAY))
    scaled = figures(margin({"a": {name: quantity * factor for name, quantity in book.items()}}, DAY))
    for name, values in once.items():
        # The credit of each leg is rounded to eight decimals.
        np.testing.assert_allclose(scaled[name], np.array(values) * factor, rtol=1e-9, atol=1e-6)


@given(BOOKS)
def test_no_component_is_negative_and_the_minimum_holds(book):
    rows = margin({"a": book}, DAY).commodities
    for name in ("scan", "intra", "delivery", "inter", "short_option_minimum", "requirement", "maintenance"):
        assert (getattr(rows, name) >= 0.0).all(), name
    assert (rows.requirement >= rows.short_option_minimum).all()
    assert (rows.initial >= rows.maintenance).all()


@given(BOOKS, BOOKS)
def test_scan_risk_of_two_books_together_is_at_most_the_sum(one, other):
    scans = [margin({"a": book}, DAY).portfolios.scan[0] for book in ([*one.items(), *other.items()], one, other)]
    assert scans[0] <= scans[1] + scans[2] + 1e-9


@given(BOOKS)
def test_gross_account_owes_at_least_the_scan_risk_of_the_net_one(book):
    both = [*book.items(), *((name, -quantity // 2) for name, quantity in book.items())]
    net, gross = margin({"a": both}, DAY).portfolios, margin({"a": both}, DAY, is_gross=True).portfolios
    assert gross.scan[0] >= net.scan[0] - 1e-9


@given(BOOKS)
def test_credit_never_exceeds_what_the_legs_delta_is_worth(book):
    rows = margin({"a": book}, DAY).commodities
    assert (rows.inter <= np.abs(rows.net_delta) * rows.weighted_price_risk * 0.6 + 1e-6).all()


@given(BOOKS)
def test_months_spreads_never_exceed_the_shorter_side(book):
    rows = margin({"a": book}, DAY).commodities
    for row in range(len(rows.commodity)):
        code = DAY.commodities[rows.commodity[row]].code
        by_month: dict[str, float] = {}
        for name, quantity in book.items():
            index = NAMES.index(name)
            if DAY.contracts.combined_commodity[index] == code:
                month = DAY.contracts.period[index]
                by_month[month] = by_month.get(month, 0.0) + quantity * DAY.contracts.composite_delta[index]
        long = sum(max(delta, 0.0) for delta in by_month.values())
        short = sum(max(-delta, 0.0) for delta in by_month.values())
        assert rows.intra_spreads[row] <= min(long, short) + 1e-9
