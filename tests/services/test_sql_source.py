"""The database as source, on a real PostgreSQL: the same feeds as from files, and no secret anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pandas as pd
import pytest
import sqlalchemy as sa

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import to_text, to_typed
from margin_tasks.contracts.generate import sql_type
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sources import Source, SourceError, open_source, pull_feeds
from margin_tasks.sources.delivery import text_columns
from margin_tasks.validation import gate
from tests.services.conftest import PASSWORD
from tests.unit.clearing_book import BUSINESS_DATE, CUT_OFF, SESSION, valid_book

pytestmark = pytest.mark.services

YESTERDAY = date(2026, 2, 4)


def _load(connection: sa.Connection, schema: str, feed: str, texts: pd.DataFrame, *, is_text: bool) -> None:
    table = FEEDS[feed]
    types = {
        column.name: "TEXT" if is_text else sql_type(column).replace("DOUBLE", "DOUBLE PRECISION")
        for column in table.columns
    }
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    connection.execute(sa.text(f"CREATE TABLE {schema}.{feed} ({columns})"))
    values = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in types.items())
    rows = [{str(name): value for name, value in row.items()} for row in texts.to_dict("records")]
    connection.execute(sa.text(f"INSERT INTO {schema}.{feed} VALUES ({values})"), rows)


def _yesterday(feed: str, texts: pd.DataFrame) -> pd.DataFrame:
    return texts.assign(business_date=YESTERDAY.isoformat()) if "business_date" in texts.columns else texts.head(0)


@pytest.fixture(params=["typed", "text"])
def database(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[tuple[sa.Engine, str]]:
    """A schema with every feed of two days, in typed or in text columns."""
    engine = sa.create_engine(postgres_url)
    schema = f"clearing_{request.param}"
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
        for feed, texts in valid_book().items():
            both = pd.concat([texts, _yesterday(feed, texts)], ignore_index=True).sample(frac=1.0, random_state=7)
            _load(connection, schema, feed, both, is_text=request.param == "text")
    yield engine, schema
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def source(postgres_url: str, database: tuple[sa.Engine, str]) -> Source:
    return open_source(f"sql:{postgres_url}?schema={database[1]}")


def test_every_feed_of_the_day_arrives_as_from_files(source: Source) -> None:
    assert source.missing(BUSINESS_DATE, SESSION) == {}
    for feed, texts in valid_book().items():
        table = FEEDS[feed]
        key = list(table.key)
        delivery = source.pull(feed, business_date=BUSINESS_DATE, session=SESSION)
        assert delivery.row_count == len(texts)
        expected = to_typed(texts, table).sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(to_typed(delivery.frame, table).sort_values(key, ignore_index=True), expected)


def test_the_gate_accepts_what_the_database_delivers(source: Source) -> None:
    pulled = pull_feeds(source, business_date=BUSINESS_DATE, session=SESSION)
    assert not pulled.failures
    result = gate(pulled.deliveries, business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    assert result.is_accepted
    assert result.findings.empty


def test_hash_and_rows_do_not_depend_on_the_order_in_the_table(source: Source, database: tuple[sa.Engine, str]) -> None:
    engine, schema = database
    first = source.pull("positions", business_date=BUSINESS_DATE, session=SESSION)
    with engine.begin() as connection:
        again = f"CREATE TABLE {schema}.again AS SELECT * FROM {schema}.positions ORDER BY quantity"
        connection.execute(sa.text(again))
        connection.execute(sa.text(f"DROP TABLE {schema}.positions"))
        connection.execute(sa.text(f"ALTER TABLE {schema}.again RENAME TO positions"))
    second = source.pull("positions", business_date=BUSINESS_DATE, session=SESSION)
    assert first.sha256 == second.sha256
    pd.testing.assert_frame_equal(first.frame, second.frame)


def test_rows_that_are_not_there_yet_are_waited_for(source: Source, database: tuple[sa.Engine, str]) -> None:
    tomorrow = date(2026, 2, 6)
    missing = source.missing(tomorrow, SESSION)
    assert set(missing) == {"positions", "market_prices", "index_quotes"}
    with pytest.raises(SourceError, match="newest is of 2026-02-05") as caught:
        source.pull("positions", business_date=tomorrow, session=SESSION)
    assert caught.value.reason is FailureReason.WRONG_BUSINESS_DATE
    assert source.pull("trades", business_date=tomorrow, session=SESSION).row_count == 0
    engine, schema = database
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP TABLE {schema}.members"))
    assert "members" in source.missing(BUSINESS_DATE, SESSION)
    with pytest.raises(SourceError) as absent:
        source.pull("members", business_date=BUSINESS_DATE, session=SESSION)
    assert absent.value.reason is FailureReason.FEED_MISSING


def test_not_a_number_and_extra_columns_reach_the_gate(source: Source, database: tuple[sa.Engine, str]) -> None:
    engine, schema = database
    with engine.begin() as connection:
        connection.execute(
            sa.text(f"UPDATE {schema}.market_prices SET bid_price = 'NaN' WHERE instrument_id = 'BTC_USDC'")
        )
        connection.execute(sa.text(f"ALTER TABLE {schema}.members ADD COLUMN colour TEXT"))
    pulled = pull_feeds(source, business_date=BUSINESS_DATE, session=SESSION)
    result = gate(pulled.deliveries, business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    found = set(zip(result.findings["feed"], result.findings["rule"], result.findings["field"], strict=True))
    assert ("market_prices", "text_form", "bid_price") in found
    assert "header_mismatch" in result.findings["rule"].tolist()


def test_no_secret_is_shown(source: Source, postgres_url: str) -> None:
    assert PASSWORD not in source.spec
    assert "***" in source.spec
    assert PASSWORD not in source.pull("members", business_date=BUSINESS_DATE, session=SESSION).location
    for url in (
        postgres_url.replace("clearing:", "nobody:"),
        postgres_url.replace("127.0.0.1:", "127.0.0.1:1"),
        f"{postgres_url}?sslpassword=hush-{PASSWORD}&sslmode=require",
    ):
        with pytest.raises(SourceError) as caught:
            open_source(f"sql:{url}").pull("members", business_date=BUSINESS_DATE, session=SESSION)
        assert caught.value.reason is FailureReason.SOURCE_UNREACHABLE
        assert PASSWORD not in str(caught.value)
        assert caught.value.__cause__ is None


def test_typed_columns_arrive_in_the_contracts_text(source: Source) -> None:
    delivery = source.pull("instruments", business_date=BUSINESS_DATE, session=SESSION)
    expected = to_text(to_typed(valid_book()["instruments"], FEEDS["instruments"]), FEEDS["instruments"])
    names = text_columns(delivery.frame)
    if "typed" in source.spec:
        pd.testing.assert_frame_equal(
            delivery.frame[names].sort_values("instrument_id", ignore_index=True),
            expected.sort_values("instrument_id", ignore_index=True),
        )
    assert delivery.frame["_row"].tolist() == list(range(2, 10))
