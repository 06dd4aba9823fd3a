"""An account may be called on under any rulebook in force; all others are margined beside it."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd
import pytest

from margin_tasks.pipeline import compute
from margin_tasks.rulebooks.registry import rulebooks_in_force
from tests import books
from tests.margining import closes

RULEBOOKS = tuple(rulebook.rulebook_id for rulebook in rulebooks_in_force(books.BUSINESS_DATE))
HELD = {books.PERPETUAL: 600, books.FUTURE: -300, books.CALL: -1.5, books.PUT: 2, books.ETHER_PERPETUAL: 2_000}


def day(account_ids: list[str]) -> dict[str, pd.DataFrame]:
    feeds = books.feeds(
        dict.fromkeys(RULEBOOKS, HELD),
        trades=[(rulebook_id, books.CALL, -0.5, 0.085) for rulebook_id in RULEBOOKS],
        rulebooks={rulebook_id: rulebook_id for rulebook_id in RULEBOOKS},
        collateral={rulebook_id: {"USD": 1_000} for rulebook_id in RULEBOOKS},
    )
    history = closes().assign(price_source="test")
    feeds["price_history"] = history[history["asset"].isin(["BTC", "ETH"])].reset_index(drop=True)
    valued = compute.value(feeds, quarantine=books.no_quarantine(), cutoff_at=books.CUTOFF_AT)
    return valued | compute.margin(
        feeds,
        valued,
        quarantine=books.no_quarantine(),
        account_ids=account_ids,
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )


@pytest.fixture(scope="module")
def margined() -> dict[str, pd.DataFrame]:
    return day(list(RULEBOOKS))


def test_ten_methodologies_and_the_house_grid_are_in_force():
    assert set(RULEBOOKS) == {
        "isolated", "cross", "span", "tims", "strategy", "pmrm", "option_standard", "exchange_pm",
        "collateral_factor", "house_es", "portfolio",
    }  # fmt: skip


def test_every_account_has_a_requirement_under_every_rulebook_and_the_same_book_needs_the_same(margined):
    requirements = margined["requirements"]
    assert len(requirements) == len(RULEBOOKS) ** 2
    by_rulebook = requirements.groupby("rulebook_id")["initial_margin"].nunique()
    assert (by_rulebook == 1).all()
    assert (requirements["initial_margin"] > 0).all()


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
def test_an_account_is_called_on_under_its_own_rulebook(margined, rulebook_id):
    own = margined["account_margin"].set_index("account_id").loc[rulebook_id]
    assert own["rulebook_id"] == rulebook_id
    stated = margined["requirements"].query("account_id == @rulebook_id and rulebook_id == @rulebook_id").iloc[0]
    assert stated["is_attributed"]
    assert own["initial_margin"] == stated["initial_margin"]
    change = margined["requirement_changes"].set_index("account_id").loc[rulebook_id]
    assert change["initial_margin"] == stated["initial_margin"]
    parts = change[["previous_initial_margin", "market_effect", "trading_effect"]]
    assert sum(parts, Decimal(0)) == stated["initial_margin"]


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
def test_its_shares_add_up_to_every_component(margined, rulebook_id):
    key = ["netting_set", "component", "margin_type"]
    where = "account_id == @rulebook_id and rulebook_id == @rulebook_id"
    shares = margined["requirement_shares"].query(where).groupby(key)["amount"].sum()
    components = margined["requirement_components"].query(where).groupby(key)["amount"].sum()
    components = components[components != 0]
    assert shares[shares != 0].to_dict() == components.to_dict()


def test_accounts_may_be_margined_apart(margined):
    for rulebook_id in ("house_es", "strategy"):
        apart = day([rulebook_id])
        for name in ("requirements", "requirement_components", "requirement_shares", "position_values"):
            rows = margined[name].query("account_id == @rulebook_id").reset_index(drop=True)
            pd.testing.assert_frame_equal(apart[name], rows)
