"""What the gate finds: broken rules row by row, and the rows that are set aside for them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from margin_tasks.contracts.failures import MarginError
from margin_tasks.contracts.fields import FIELDS
from margin_tasks.contracts.frames import empty_frame
from margin_tasks.contracts.rules import RULES, Action, Rule
from margin_tasks.contracts.tables import VALIDATION
from margin_tasks.sources.delivery import FILE_COLUMN, ROW_COLUMN, DeliveryProblem, FeedDelivery, text_columns

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WHOLE_FILE = 0
_LONGEST_VALUE = 200
_ACCOUNT = "account_id"


def _shown(value: object) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return None
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def cell_in_place(problem: DeliveryProblem, header: Sequence[str], name: str) -> str | None:
    """The cell of a misshapen line that stands where a field should, when it can be one; None otherwise."""
    position = header.index(name) if name in header else len(problem.cells)
    if position < len(problem.cells) and re.fullmatch(FIELDS[name].pattern or "", problem.cells[position]):
        return problem.cells[position]
    return None


@dataclass(frozen=True, slots=True)
class _Finding:
    feed: str
    file: str
    row: int
    field: str | None
    rule: Rule
    value: str | None
    message: str


@dataclass
class DeliveredFeed:
    """One delivered feed under examination.

    Attributes:
        delivery: as pulled.
        texts: delivered text columns, objects with None where empty, index 0..n-1.
        rows: line in the file of each row.
        files: file of each row.
        is_set_aside: rows that a rule has put into quarantine.
        typed: typed values of all rows once they could be read; only rows that are not set aside are meaningful.
        implied: typed rows that no one delivered in a usable form and that the other rows determine.
        implausible: booleans of the rows' index, by field: prices that cannot be, also in rows set aside for more.
        is_usable: the feed as a whole was not refused, so that other feeds may be checked against it.
    """

    delivery: FeedDelivery
    texts: pd.DataFrame = field(init=False)
    rows: Positions = field(init=False)
    files: npt.NDArray[np.object_] = field(init=False)
    is_set_aside: Mask = field(init=False)
    typed: pd.DataFrame = field(init=False)
    implied: pd.DataFrame = field(init=False)
    implausible: pd.DataFrame = field(init=False)
    is_usable: bool = True

    def __post_init__(self) -> None:
        frame = self.delivery.frame.reset_index(drop=True)
        texts = frame[text_columns(frame)].astype(object)
        self.texts = texts.mask(texts.isna(), None)
        self.rows = frame[ROW_COLUMN].to_numpy(dtype=np.int64)
        self.files = (
            frame[FILE_COLUMN].to_numpy(dtype=object)
            if FILE_COLUMN in frame.columns
            else np.full(len(frame), self.delivery.location, dtype=object)
        )
        self.is_set_aside = np.zeros(len(frame), dtype=bool)
        self.typed = pd.DataFrame(index=frame.index)
        self.implied = pd.DataFrame()
        self.implausible = pd.DataFrame(index=frame.index)

    @property
    def name(self) -> str:
        """Name of the feed."""
        return self.delivery.feed

    @property
    def accepted(self) -> pd.DataFrame:
        """Typed rows that are not set aside, with the index of the delivered rows."""
        return self.typed[~self.is_set_aside]

    @property
    def counted(self) -> pd.DataFrame:
        """Typed rows that figures are computed from: the accepted and the implied ones."""
        return pd.concat([self.accepted, self.implied], ignore_index=True) if len(self.implied) else self.accepted

    def column_texts(self, name: str) -> npt.NDArray[np.object_]:
        """Delivered texts of one column, shape (rows,)."""
        return self.texts[name].to_numpy(dtype=object)


class Ledger:
    """Collects findings and keeps each set-aside row once, with the first rule that it broke."""

    def __init__(self) -> None:
        self._findings: list[_Finding] = []
        self._quarantine: list[tuple[_Finding, str]] = []

    def record_feed(
        self,
        feed: str,
        rule_name: str,
        message: str,
        *,
        file: str,
        row: int = WHOLE_FILE,
        field_name: str | None = None,
        value: object = None,
    ) -> None:
        """Record a break that concerns the feed as a whole, or one place in it that is not a row of it."""
        self._add(self._rule(feed, rule_name), feed, file, row, field_name, value, message)

    def record_rows(
        self,
        feed: DeliveredFeed,
        rule_name: str,
        positions: Sequence[int] | Positions,
        messages: Sequence[str] | str,
        *,
        field_name: str | None = None,
        values: Sequence[object] | None = None,
    ) -> None:
        """Record a break for each of the rows; a quarantine rule also sets them aside.

        Args:
            feed: the feed.
            rule_name: a registered rule.
            positions: rows by position in the delivered frame.
            messages: one for each row, or one for all.
            field_name: field that breaks the rule, whose delivered texts are the offending values.
            values: offending values where they are not the field's texts.
        """
        rule = self._rule(feed.name, rule_name)
        texts = feed.column_texts(field_name) if field_name is not None and field_name in feed.texts.columns else None
        found = {}
        for order, position in enumerate(int(position) for position in positions):
            value = values[order] if values is not None else None if texts is None else texts[position]
            message = messages if isinstance(messages, str) else messages[order]
            finding = self._add(
                rule, feed.name, feed.files[position], int(feed.rows[position]), field_name, value, message
            )
            if rule.action is Action.QUARANTINED and not feed.is_set_aside[position]:
                found[position] = finding
        set_aside = list(found)
        feed.is_set_aside[set_aside] = True
        raw_rows = feed.texts.iloc[set_aside].to_dict("records")
        self._quarantine.extend(
            (finding, json.dumps(row, ensure_ascii=False))
            for finding, row in zip(found.values(), raw_rows, strict=True)
        )

    def record_problem(self, feed: DeliveredFeed, problem: DeliveryProblem) -> None:
        """Record a delivered record that is not a row of the feed."""
        finding = self._add(
            self._rule(feed.name, problem.rule),
            feed.name,
            problem.file,
            problem.row,
            None,
            ",".join(problem.cells),
            problem.message,
        )
        row: dict[str, object] = {"_cells": list(problem.cells)}
        # The account is to be flagged.
        account = cell_in_place(problem, list(feed.texts.columns), _ACCOUNT)
        if account is not None:
            row[_ACCOUNT] = account
        self._quarantine.append((finding, json.dumps(row, ensure_ascii=False)))

    def first_failure(self) -> MarginError | None:
        """The first break that refuses the run, in the order of checking, with the number of the others."""
        refusals = [(finding.rule.reason, finding) for finding in self._findings if finding.rule.reason is not None]
        if not refusals:
            return None
        (reason, first), others = refusals[0], len(refusals) - 1
        more = f" (and {others} more {'finding' if others == 1 else 'findings'} that refuse the run)" if others else ""
        return MarginError(reason, f"{first.feed}: {first.message}{more}")

    def causes(self, feed: str) -> dict[tuple[str, int], tuple[str, str]]:
        """Rule and message for which each record of the feed was set aside, by file and row."""
        found = (finding for finding, _ in self._quarantine if finding.feed == feed)
        return {(finding.file, finding.row): (finding.rule.name, finding.message) for finding in found}

    def own_faults(self, feed: str) -> int:
        """Number of records of the feed that were set aside for a fault of their own, not of another feed."""
        return sum(finding.feed == feed and not finding.rule.is_consequence for finding, _ in self._quarantine)

    def most_frequent_cause(self, feed: str) -> tuple[str, int, str]:
        """Rule for which most rows of the feed were set aside, their number, and the message of the first one.

        Rows that are only set aside because of another feed do not count.
        """
        found = [finding for finding, _ in self._quarantine if finding.feed == feed and not finding.rule.is_consequence]
        rule, count = Counter(finding.rule.name for finding in found).most_common(1)[0]
        return rule, count, next(finding.message for finding in found if finding.rule.name == rule)

    def findings_frame(self) -> pd.DataFrame:
        """All findings as the table ``findings``, ordered by feed, file, row, field and rule."""
        table = VALIDATION["findings"]
        if not self._findings:
            return empty_frame(table)
        frame = pd.DataFrame(
            [
                (
                    finding.feed,
                    finding.file,
                    finding.row,
                    finding.field,
                    finding.rule.name,
                    str(finding.rule.severity),
                    str(finding.rule.action),
                    finding.value,
                    finding.message,
                )
                for finding in self._findings
            ],
            columns=list(table.column_names),
        )
        return _typed_text(frame, table.key)

    def quarantine_frame(self) -> pd.DataFrame:
        """All set-aside rows as the table ``quarantine``, ordered by feed, file and row."""
        table = VALIDATION["quarantine"]
        if not self._quarantine:
            return empty_frame(table)
        frame = pd.DataFrame(
            [
                (finding.feed, finding.file, finding.row, finding.rule.name, finding.message, raw_row)
                for finding, raw_row in self._quarantine
            ],
            columns=list(table.column_names),
        )
        return _typed_text(frame, table.key)

    def _add(
        self, rule: Rule, feed: str, file: str, row: int, field_name: str | None, value: object, message: str
    ) -> _Finding:
        finding = _Finding(feed, file, row, field_name, rule, _shown(value), message)
        self._findings.append(finding)
        return finding

    @staticmethod
    def _rule(feed: str, rule_name: str) -> Rule:
        rule = RULES.get(rule_name)
        if rule is None or feed not in rule.feeds:
            raise ValueError(f"rule {rule_name} is not registered for feed {feed}")
        return rule


def _typed_text(frame: pd.DataFrame, key: tuple[str, ...]) -> pd.DataFrame:
    typed = frame.astype({name: "str" for name in frame.columns if name != "row"}).astype({"row": "int64"})
    return typed.sort_values(list(key), kind="stable", na_position="first", ignore_index=True)
