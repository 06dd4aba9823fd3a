"""Names of the registry in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from margin_tasks.contracts.decision_vocabulary import CallTrigger, DecisionReason
from margin_tasks.reporting.amounts import format_percent
from margin_tasks.reporting.frames import Record, clean_text

ACCOUNT_TYPES: Final = {
    "house": "house account",
    "client_individual": "individual client account",
    "client_omnibus": "omnibus client account",
}

# Whose account it is, in the codes of ISO 20022 (ClearingAccountType1Code).
ORIGINS: Final = {"house": "HOUS", "client_individual": "CLIE", "client_omnibus": "CLIE"}


@dataclass(frozen=True, slots=True)
class Wording:
    """A name that people read, and one sentence that explains it."""

    name: str
    meaning: str


# From the simplest to the finest.
RULEBOOKS: Final = {
    "isolated": Wording("Isolated margin", "Every position stands alone: no offsets, and no gain supports another."),
    "cross": Wording("Cross margin", "Collateral is shared by the whole account; positions do not offset each other."),
    "collateral_factor": Wording("Collateral factors", "Assets count in part and debts in excess, as lenders do it."),
    "strategy": Wording("Strategy margin", "Option legs are paired into named strategies with a rule for each."),
    "option_standard": Wording("Standard option margin", "Short options by moneyness; spreads owe their worst payoff."),
    "span": Wording("SPAN", "Sixteen scenarios an underlying; charges and credits for spreads."),
    "tims": Wording("TIMS", "Ten price points a class of products; offsets inside product groups."),
    "pmrm": Wording("Portfolio risk manager", "Scenarios with skew, plus contingencies for what they leave out."),
    "exchange_pm": Wording("Exchange portfolio margin", "Price and volatility matrix with far tails and delta shocks."),
    "portfolio": Wording("Portfolio margin", "Positions on one underlying are shocked together and offset each other."),
    "house_es": Wording("House expected shortfall", "Filtered historical tail losses with add-ons, floors and limits."),
}
RULEBOOKS_IN_ORDER: Final = tuple(RULEBOOKS)
_SHORT_NAMES: Final = {
    "collateral_factor": "Factors",
    "option_standard": "Standard",
    "pmrm": "PMRM",
    "exchange_pm": "Exchange PM",
    "house_es": "House ES",
}

# In the order in which a requirement is read.
COMPONENTS: Final = {
    "scan_risk": Wording("Scan risk", "Largest loss of the positions together over the scenarios."),
    "short_option_minimum": Wording("Short option minimum", "What the least amount for written options adds."),
    "calendar_charge": Wording("Calendar charge", "Prices of different expiries may move apart."),
    "notional_charge": Wording("Notional charge", "Rate on the size of futures and perpetuals; large ones pay more."),
    "short_option_charge": Wording("Short option charge", "Written options, each by how far it is from the money."),
    "long_option_value": Wording("Long option value", "Equity counts it; here it supports nothing else."),
    "ringfenced_gain": Wording("Ring-fenced gain", "Equity counts it; here it supports no other position."),
    "inter_commodity_credit": Wording("Inter-commodity credit", "Opposed positions on related underlyings."),
    "outside_methodology": Wording("Outside the method", "Positions that the published rules do not know."),
    "buffer": Wording("Buffer", "Margin of safety on top of the other parts."),
    "conservative_add_on": Wording("Conservative add-on", "Some input was refused; a cautious figure stands in."),
}

# Core: what the method measures on the positions themselves, offsets between them included. Every other part is an
# add-on: charges for what the measure leaves out, minimums, floors and margins of safety.
CORE_COMPONENTS: Final = frozenset(
    {
        "scan_risk", "market_risk", "matrix_loss", "scenario_loss", "worst_loss", "notional_charge",
        "short_option_charge", "short_option_value", "long_option_value", "ringfenced_gain", "uncovered_short_options",
        "covered_short_options", "paired_short_options", "paired_option_margin", "isolated_option_margin",
        "spread_loss", "underlying_positions", "perpetual_margin", "perpetual_gain", "owned_and_owed", "asset_haircut",
        "perpetual_haircut", "liability_premium", "inter_commodity_credit", "product_group_offset",
    }
)  # fmt: skip

# What stands against procyclicality: a floor, or a buffer that may be used up when markets are stressed.
ANTI_PROCYCLICALITY_COMPONENTS: Final = frozenset({"anti_procyclicality_floor", "buffer"})

COUNTING_RULES: Final = {
    "counted": "",
    "debt": "a debt counts in full",
    "own_group": "issued by the member's own group: counts nothing",
    "not_eligible": "not eligible: counts nothing",
    "price_too_old": "price too old: counts nothing",
    "issuer_limit": "cut by the limit of its issuer",
    "asset_class_limit": "cut by the limit of its asset class",
    "stale_price": "extra haircut for a stale price",
    "tiered": "haircut by size",
}

CALL_TRIGGERS: Final = {
    CallTrigger.END_OF_DAY: "end of the clearing day",
    CallTrigger.REQUIREMENT_ABOVE_COLLATERAL: "requirement too far above equity",
    CallTrigger.MARK_TO_MARKET_LOSS: "mark-to-market loss of the day",
    CallTrigger.MARKET_MOVE: "the market raised the requirement",
    CallTrigger.POSITION_GROWTH: "the day's trades raised the requirement",
}

# Why an account is called, or is not.
DECISION_REASONS: Final = {
    DecisionReason.NO_DEFICIT: "there is no deficit",
    DecisionReason.WITHIN_THRESHOLD: "the deficit lies within the threshold",
    DecisionReason.ABOVE_MAINTENANCE: "equity is not below the maintenance margin",
    DecisionReason.IMMATERIAL: "the deficit is immaterial within the day",
    DecisionReason.NO_INTRADAY_TRIGGER: "nothing has happened that an intraday session calls for",
    DecisionReason.COVERED_BY_PENDING: "money on its way covers the deficit",
    DecisionReason.BELOW_MINIMUM_TRANSFER: "the amount is below the minimum transfer amount",
    DecisionReason.CALLED: "called",
}

VOLATILITY_MOVES: Final = {
    "down": "volatility down",
    "same": "volatility unchanged",
    "up": "volatility up",
}


def humanised(identifier: object) -> str:
    """A registry name as words: ``short_option_minimum`` becomes ``Short option minimum``."""
    words = clean_text(identifier).replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def rulebook_name(rulebook_id: object) -> str:
    """Name of a methodology; an unlisted one by its identifier."""
    known = RULEBOOKS.get(str(rulebook_id))
    return known.name if known else humanised(rulebook_id)


def short_rulebook_name(rulebook_id: object) -> str:
    """Name of a methodology as the head of a column."""
    return _SHORT_NAMES.get(str(rulebook_id), rulebook_name(rulebook_id).removesuffix(" margin"))


def rulebook_meaning(rulebook_id: object) -> str:
    """One sentence on a methodology; empty for an unlisted one."""
    known = RULEBOOKS.get(str(rulebook_id))
    return known.meaning if known else ""


def component_name(component: object) -> str:
    """Name of a part of the requirement; an unlisted one by its identifier."""
    known = COMPONENTS.get(str(component))
    return known.name if known else humanised(component)


def component_meaning(component: object) -> str:
    """One sentence on a part of the requirement; empty for an unlisted one."""
    known = COMPONENTS.get(str(component))
    return known.meaning if known else ""


def is_core(component: object) -> bool:
    """Whether a part of the requirement is core; an unlisted one is an add-on."""
    return str(component) in CORE_COMPONENTS


def component_rank(component: object) -> tuple[int, str]:
    """Sort key: the order of ``COMPONENTS``, then the alphabet."""
    name = str(component)
    order = list(COMPONENTS)
    return (order.index(name) if name in COMPONENTS else len(order), name)


def scenario_words(scenario: Record) -> str:
    """A row of ``scenarios`` in words: ``BTC -16 %, volatility up``."""
    underlying = clean_text(scenario["underlying"])
    move = float(scenario["price_move"])
    price = f"{underlying} unchanged" if move == 0.0 else f"{underlying} {format_percent(move, is_signed=True)}"
    words = f"{price}, {VOLATILITY_MOVES.get(str(scenario['volatility_move']), humanised(scenario['volatility_move']))}"
    weight = float(scenario["weight"])
    return words if weight >= 1.0 else f"{words} (tail: {format_percent(weight)} of the result counts)"


class ScenarioWords:
    """Looks scenarios up by rulebook, netting set and identifier and says them in words."""

    def __init__(self, scenarios: list[Record]) -> None:
        self._exact = {
            (str(row["rulebook_id"]), str(row["underlying"]), str(row["scenario_id"])): row for row in scenarios
        }

    def find(self, *, rulebook_id: object, netting_set: object, scenario_id: object) -> Record | None:
        """The scenario's row; None when the grid does not hold it (not every rulebook scans)."""
        return self._exact.get((str(rulebook_id), str(netting_set), str(scenario_id)))

    def describe(self, *, rulebook_id: object, netting_set: object, scenario_id: object) -> str:
        """Words for the scenario; its bare identifier when the grid does not hold it; empty for none."""
        if scenario_id is None:
            return ""
        row = self.find(rulebook_id=rulebook_id, netting_set=netting_set, scenario_id=scenario_id)
        return scenario_words(row) if row else f"scenario {clean_text(scenario_id)}"
