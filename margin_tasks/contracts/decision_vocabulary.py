"""The closed lists behind a decision to call or not: why an account is looked at, and what was decided why."""

from __future__ import annotations

from enum import StrEnum


class CallTrigger(StrEnum):
    """Why a session may call an account; of several that fire, the first in this order is stated."""

    END_OF_DAY = "end_of_day"
    REQUIREMENT_ABOVE_COLLATERAL = "requirement_above_collateral"
    MARK_TO_MARKET_LOSS = "mark_to_market_loss"
    MARKET_MOVE = "market_move"
    POSITION_GROWTH = "position_growth"


class Decision(StrEnum):
    """What was decided about an account."""

    CALLED = "called"
    NOT_CALLED = "not_called"


class DecisionReason(StrEnum):
    """Why an account is called, or is not; the first in this order that holds is stated."""

    NO_DEFICIT = "no_deficit"
    WITHIN_THRESHOLD = "within_threshold"
    ABOVE_MAINTENANCE = "above_maintenance"
    IMMATERIAL = "immaterial"
    NO_INTRADAY_TRIGGER = "no_intraday_trigger"
    COVERED_BY_PENDING = "covered_by_pending"
    BELOW_MINIMUM_TRANSFER = "below_minimum_transfer"
    CALLED = "called"
