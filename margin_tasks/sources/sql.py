"""A database as source: one table for each feed, named as the feed, read through any SQLAlchemy URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import canonical_text
from margin_tasks.contracts.tables import FEEDS, FEEDS_THAT_MAY_BE_EMPTY
from margin_tasks.sources.delivery import FeedDelivery, SourceError, deliver_text

_DATE_COLUMN = "business_date"
_CONNECT_TIMEOUT_SECONDS = 10


class SqlSource:
    """Feeds from a database.

    The URL may name the schema (``?schema=clearing``). A table that has ``business_date`` may hold many days: only
    the rows of the day asked for are read. The password never appears in ``spec``, locations or messages.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise SourceError(
                FailureReason.UNKNOWN_SOURCE,
                "the database URL is not understood; write sql:dialect://user:password@host:port/database",
            ) from None
        schema = parsed.query.get("schema")
        self._schema = schema if isinstance(schema, str) else None
        self._url = parsed.difference_update_query(["schema"])
        if self._url.drivername in {"postgres", "postgresql"}:
            self._url = self._url.set(drivername="postgresql+psycopg")
        # Connection parameters may hold secrets of their own (sslpassword, tokens): none of them is shown.
        shown = self._url.set(query={}).render_as_string(hide_password=True)
        self.spec = f"sql:{shown}" + (f"?schema={self._schema}" if self._schema else "")
        self._secrets = [text for text in (parsed.password, *_values(parsed.query)) if text and text != self._schema]
        try:
            self._engine = sa.create_engine(
                self._url, hide_parameters=True, poolclass=sa.NullPool, connect_args=_connect_args(self._url)
            )
        except (sa.exc.ArgumentError, ImportError, ValueError) as error:
            raise SourceError(
                FailureReason.UNKNOWN_SOURCE,
                f"no driver for {self._url.drivername} ({self._without_secrets(error)}); install it or use "
                "postgresql+psycopg or sqlite",
            ) from None

    def missing(self, business_date: date, session: str) -> dict[str, str]:
        """Feeds without a table, or whose table has no row of the day although the feed may not be empty."""
        waiting: dict[str, str] = {}
        with self._connection() as connection:
            tables = set(sa.inspect(connection).get_table_names(self._schema))
            tables |= set(sa.inspect(connection).get_view_names(self._schema))
            for feed in FEEDS:
                if feed not in tables:
                    waiting[feed] = f"no table {self._table_name(feed)}"
                elif feed not in FEEDS_THAT_MAY_BE_EMPTY:
                    statement = self._select(connection, feed, business_date).limit(1)
                    if connection.execute(statement).first() is None:
                        waiting[feed] = f"table {self._table_name(feed)} has no row of {business_date}"
        return waiting

    def pull(self, feed: str, *, business_date: date, session: str) -> FeedDelivery:
        """Read one table, or the day's rows of it.

        Rows are sorted by their text, so that the same table gives the same hash and row numbers however the
        database stores it.

        Raises:
            SourceError: FEED_MISSING, FILE_UNREADABLE or SOURCE_UNREACHABLE.
        """
        with self._connection() as connection:
            if not sa.inspect(connection).has_table(feed, self._schema):
                raise SourceError(
                    FailureReason.FEED_MISSING,
                    f"feed {feed}: {self.spec} has no table {self._table_name(feed)}; create and fill it",
                )
            statement = self._select(connection, feed, business_date)
            try:
                result = connection.execute(statement)
                names = list(result.keys())
                rows = result.fetchall()
            except (sa.exc.DBAPIError, ValueError, OverflowError) as error:
                raise SourceError(
                    FailureReason.FILE_UNREADABLE,
                    f"feed {feed}: table {self._table_name(feed)} cannot be read "
                    f"({self._without_secrets(error)}); correct the table",
                ) from None
            if not rows and feed not in FEEDS_THAT_MAY_BE_EMPTY:
                self._refuse_other_days(connection, feed, business_date)
        kinds = {column.name: column.field.kind for column in FEEDS[feed].columns}
        texts = sorted(
            [
                tuple(
                    canonical_text(value, kinds.get(name, Kind.STRING)) for name, value in zip(names, row, strict=True)
                )
                for row in rows
            ],
            key=lambda row: tuple(cell or "" for cell in row),
        )
        frame = pd.DataFrame(texts, columns=names, dtype=object)
        return deliver_text(feed, frame, source_spec=self.spec, location=f"table {self._table_name(feed)}")

    def _refuse_other_days(self, connection: sa.Connection, feed: str, business_date: date) -> None:
        if _DATE_COLUMN not in FEEDS[feed].column_names:
            return
        day: sa.ColumnClause[Any] = sa.column(_DATE_COLUMN)
        newest = connection.execute(sa.select(sa.func.max(day)).select_from(self._from(feed))).scalar()
        if newest is not None:
            raise SourceError(
                FailureReason.WRONG_BUSINESS_DATE,
                f"feed {feed}: table {self._table_name(feed)} has no row of {business_date}, its newest is of "
                f"{canonical_text(newest, Kind.DATE)}; load the day or ask for another",
            )

    def _select(self, connection: sa.Connection, feed: str, business_date: date) -> sa.Select[Any]:
        types = {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(feed, self._schema)}
        # Untyped columns: the driver's own values are taken, and judged as text by the gate.
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in types]
        statement: sa.Select[Any] = sa.select(*columns).select_from(self._from(feed))
        if _DATE_COLUMN in types and _DATE_COLUMN in FEEDS[feed].column_names:
            statement = statement.where(_is_of_day(sa.column(_DATE_COLUMN), types[_DATE_COLUMN], business_date))
        return statement

    def _from(self, feed: str) -> sa.TableClause:
        return sa.table(feed, schema=self._schema)

    def _table_name(self, feed: str) -> str:
        return f"{self._schema}.{feed}" if self._schema else feed

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        try:
            connection = self._engine.connect()
        except (sa.exc.DBAPIError, OSError) as error:
            raise SourceError(
                FailureReason.SOURCE_UNREACHABLE,
                f"{self.spec} cannot be reached ({self._without_secrets(error)}); check address, user and password",
            ) from None
        with connection:
            yield connection

    def _without_secrets(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split()) or type(cause).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _values(query: Any) -> list[str]:
    return [text for value in query.values() for text in ([value] if isinstance(value, str) else value)]


def _connect_args(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        return {"connect_timeout": _CONNECT_TIMEOUT_SECONDS}
    return {}


def _is_of_day(column: sa.ColumnClause[Any], column_type: Any, day: date) -> sa.ColumnElement[bool]:
    if isinstance(column_type, sa.DateTime):
        start = datetime.combine(day, time())
        return sa.and_(
            column >= sa.literal(start, column_type), column < sa.literal(start + timedelta(days=1), column_type)
        )
    if isinstance(column_type, sa.Date):
        return column == sa.literal(day, sa.Date())
    return column == sa.literal(day.isoformat(), sa.String())
