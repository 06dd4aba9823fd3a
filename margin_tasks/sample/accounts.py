"""Members and accounts of the sample. Every name is fictional."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pandas as pd


class Strategy(StrEnum):
    """What an account does; decides its book and its trades."""

    MARKET_MAKER = "market maker"
    DELTA_DESK = "delta desk"
    COVERED_WRITER = "covered writer"
    CALENDAR = "calendar spreads"
    STRADDLE_SELLER = "straddle seller"
    TAIL_SELLER = "deep out-of-the-money seller"
    CARRY = "cash and carry"
    FUTURES_CALENDAR = "futures calendar"
    DIRECTIONAL_LONG = "directional long"
    DIRECTIONAL_SHORT = "directional short"
    PROTECTIVE_PUTS = "protective puts"
    COLLAR = "collar"
    RISK_REVERSAL = "risk reversal"
    CONDOR = "iron condor"
    OMNIBUS = "client flow"
    CONCENTRATED = "concentrated short puts"
    UNDERCOLLATERALISED = "undercollateralised"
    PRODUCTS = "tokens and options of unusual terms"
    COLLATERAL_ONLY = "collateral only"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Member:
    """A clearing member; ``issuer_group`` names the group whose issues are no collateral of it."""

    member_id: str
    name: str
    country: str
    domain: str
    issuer_group: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """A margin account and how its book and collateral are generated.

    ``size`` is the scale of the book in coins of BTC; books on ETH are thirty times as many coins. ``cover`` is the
    ratio of equity to the sizing requirement at the opening; ``collateral`` lists assets and their shares in percent.
    """

    member_id: str
    code: str
    name: str
    rulebook_id: str
    strategy: Strategy
    underlying: str
    size: int
    cover: float
    collateral: tuple[tuple[str, int], ...]

    @property
    def account_id(self) -> str:
        """Member and code, unique in the clearing house."""
        return f"{self.member_id}-{self.code}"

    @property
    def account_type(self) -> str:
        """House, client_individual or client_omnibus, by the letter of the code."""
        return {"H": "house", "C": "client_individual", "O": "client_omnibus"}[self.code[0]]


MEMBERS = (
    Member("KEST", "Kestrel Point Trading LLP", "GB", "kestrelpoint"),
    Member("WIND", "Windrose Options B.V.", "NL", "windrose"),
    Member("TAMA", "Tamarind Capital Markets Pte. Ltd.", "SG", "tamarind"),
    Member("HALV", "Halvorsen Clearing AS", "NO", "halvorsen"),
    Member("BRIG", "Brightwater Derivatives LLC", "US", "brightwater"),
    Member("OSTS", "Oststrasse Handelsbank AG", "DE", "oststrasse", "OSTSTRASSE"),
    Member("LIND", "Lindvall Derivat AB", "SE", "lindvall"),
    Member("MARI", "Marisol Prime S.A.", "ES", "marisol"),
    Member("HOKU", "Hokusei Futures K.K.", "JP", "hokusei"),
    Member("CRES", "Crescent Harbour Markets Ltd.", "AE", "crescentharbour"),
    Member("ALPE", "Alpenrand Bank AG", "CH", "alpenrand"),
    Member("SABL", "Sableford Clearing Ltd.", "GB", "sableford"),
    Member("QUAY", "Quayside Digital Ltd.", "HK", "quayside"),
    Member("PAMP", "Pampas Digital S.A.", "BR", "pampas"),
)

_USD = (("USD", 100),)
_USDC = (("USDC", 100),)
_DOLLARS = (("USD", 60), ("USDC", 40))
_BTC = (("BTC", 100),)
_ETH = (("ETH", 100),)
_BTC_USD = (("BTC", 60), ("USD", 40))
_ETH_USDC = (("ETH", 60), ("USDC", 40))
_MIXED = (("USD", 40), ("USDC", 20), ("BTC", 25), ("ETH", 15))

_S = Strategy

ACCOUNTS = (
    Account("KEST", "H01", "House, market making", "portfolio", _S.MARKET_MAKER, "BTC", 0, 2.10, _MIXED),
    Account("KEST", "C01", "Orrin Peak Fund, covered calls", "portfolio", _S.COVERED_WRITER, "BTC", 600, 2.70, _BTC),
    Account("KEST", "C02", "Fenwick Partners, iron condors", "portfolio", _S.CONDOR, "BTC", 450, 1.60, _DOLLARS),
    Account("KEST", "C03", "Larkrise Capital, long futures", "cross", _S.DIRECTIONAL_LONG, "BTC", 400, 2.80, _USDC),
    Account("WIND", "H01", "House, market making", "portfolio", _S.MARKET_MAKER, "BTC", 0, 2.00, _MIXED),
    Account("WIND", "C01", "Zuiderzee Vol Fund, straddles", "portfolio", _S.STRADDLE_SELLER, "BTC", 350, 3.00, _USD),
    Account("WIND", "C02", "Polder Macro, calendars", "portfolio", _S.CALENDAR, "ETH", 400, 2.20, _USDC),
    Account("WIND", "C03", "Waddenzee Family Office", "isolated", _S.PROTECTIVE_PUTS, "BTC", 300, 2.90, _BTC_USD),
    Account("WIND", "O01", "Client omnibus, options", "portfolio", _S.OMNIBUS, "BTC", 300, 2.30, _MIXED),
    Account("TAMA", "H01", "House, market making", "portfolio", _S.MARKET_MAKER, "ETH", 0, 2.20, _MIXED),
    Account("TAMA", "H02", "House, delta one", "portfolio", _S.DELTA_DESK, "BTC", 0, 2.60, _MIXED),
    Account("TAMA", "C01", "Rambutan Digital, carry", "portfolio", _S.CARRY, "BTC", 900, 1.80, _BTC),
    Account("TAMA", "C02", "Mangrove Yield, deep puts", "portfolio", _S.TAIL_SELLER, "BTC", 1200, 2.60, _USDC),
    Account("TAMA", "C03", "Seletar Holdings, longs", "isolated", _S.DIRECTIONAL_LONG, "ETH", 220, 2.60, _USDC),
    Account("HALV", "H01", "House, proprietary", "portfolio", _S.RISK_REVERSAL, "BTC", 400, 2.70, _USD),
    Account("HALV", "C01", "Nordfjell Kraft Treasury, collar", "portfolio", _S.COLLAR, "BTC", 500, 1.80, _BTC),
    Account("HALV", "C02", "Skagerrak Fund, straddles", "portfolio", _S.STRADDLE_SELLER, "ETH", 250, 3.00, _DOLLARS),
    Account("HALV", "O01", "Client omnibus, futures", "cross", _S.OMNIBUS, "ETH", 180, 3.20, _MIXED),
    Account("BRIG", "H01", "House, delta one", "portfolio", _S.DELTA_DESK, "ETH", 0, 2.60, _MIXED),
    Account("BRIG", "C01", "Redtail Capital, covered calls", "portfolio", _S.COVERED_WRITER, "ETH", 450, 2.10, _ETH),
    Account("BRIG", "C02", "Palisade Arbitrage, futures", "portfolio", _S.FUTURES_CALENDAR, "BTC", 1100, 2.50, _USD),
    Account("BRIG", "C03", "Juniper Creek LP, longs", "cross", _S.DIRECTIONAL_LONG, "ETH", 300, 2.50, _DOLLARS),
    Account("BRIG", "C04", "Tallgrass Pension, puts", "portfolio", _S.PROTECTIVE_PUTS, "BTC", 800, 2.00, _USD),
    Account("OSTS", "H01", "House, proprietary", "portfolio", _S.CALENDAR, "BTC", 550, 2.10, _USD),
    Account("OSTS", "C01", "Elbtal Fonds, Kalender", "portfolio", _S.CALENDAR, "BTC", 300, 1.70, _DOLLARS),
    Account("OSTS", "C02", "Havelland Invest, carry", "portfolio", _S.CARRY, "ETH", 600, 1.90, _ETH_USDC),
    Account("OSTS", "C03", "Spreewald GmbH, dormant", "portfolio", _S.EMPTY, "BTC", 0, 0.00, ()),
    Account("OSTS", "O01", "Client omnibus, options", "portfolio", _S.OMNIBUS, "ETH", 260, 2.40, _MIXED),
    Account("LIND", "H01", "House, treasury", "portfolio", _S.COLLATERAL_ONLY, "BTC", 250, 1.00, _MIXED),
    Account("LIND", "C01", "Vasa Volatilitet, strangles", "portfolio", _S.TAIL_SELLER, "ETH", 800, 2.55, _USDC),
    Account("LIND", "C02", "Gotska Fund, condors", "portfolio", _S.CONDOR, "ETH", 350, 2.40, _ETH_USDC),
    Account("LIND", "C03", "Öland Kapital, longs", "isolated", _S.DIRECTIONAL_LONG, "BTC", 150, 2.60, _USDC),
    Account("MARI", "H01", "House, proprietary", "portfolio", _S.STRADDLE_SELLER, "BTC", 300, 3.00, _USD),
    Account("MARI", "C01", "Cala Blanca SICAV, collars", "portfolio", _S.COLLAR, "ETH", 350, 2.10, _ETH),
    Account("MARI", "C02", "Sierra Alta Fund, long", "portfolio", _S.DIRECTIONAL_LONG, "BTC", 550, 1.55, _BTC_USD),
    Account("MARI", "C03", "Tramuntana Trading, shorts", "cross", _S.DIRECTIONAL_SHORT, "BTC", 250, 2.20, _USDC),
    Account("MARI", "O01", "Client omnibus, mixed", "cross", _S.OMNIBUS, "BTC", 140, 3.10, _MIXED),
    Account("HOKU", "H01", "House, proprietary", "portfolio", _S.FUTURES_CALENDAR, "ETH", 600, 2.20, _USD),
    Account("HOKU", "C01", "Shirakaba Asset, calls", "portfolio", _S.COVERED_WRITER, "BTC", 400, 2.60, _BTC_USD),
    Account("HOKU", "C02", "Komorebi Fund, risk reversals", "portfolio", _S.RISK_REVERSAL, "ETH", 400, 1.90, _DOLLARS),
    Account("HOKU", "C03", "Tsubame Trading, longs", "isolated", _S.DIRECTIONAL_LONG, "BTC", 100, 3.00, _USDC),
    Account("HOKU", "O01", "Client omnibus, futures", "cross", _S.OMNIBUS, "BTC", 200, 3.20, _MIXED),
    Account("CRES", "H01", "House, proprietary", "portfolio", _S.DIRECTIONAL_SHORT, "ETH", 350, 2.00, _USD),
    Account("CRES", "C01", "Qasr Ventures, one expiry", "portfolio", _S.CONCENTRATED, "BTC", 1800, 2.20, _DOLLARS),
    Account("CRES", "C02", "Mirage Digital, straddles", "portfolio", _S.UNDERCOLLATERALISED, "BTC", 400, 0.35, _BTC),
    Account("CRES", "C03", "Liwa Family Office, puts", "portfolio", _S.PROTECTIVE_PUTS, "ETH", 400, 2.00, _ETH_USDC),
    Account("ALPE", "H01", "House, market making", "portfolio", _S.MARKET_MAKER, "ETH", 0, 2.30, _MIXED),
    Account("ALPE", "C01", "Engadin Multi-Strategy, carry", "portfolio", _S.CARRY, "BTC", 700, 2.20, _BTC_USD),
    Account("ALPE", "C02", "Furka Structured Notes", "portfolio", _S.TAIL_SELLER, "BTC", 700, 3.70, _USD),
    Account("ALPE", "C03", "Simplon Treasury, collars", "portfolio", _S.COLLAR, "BTC", 400, 2.30, _BTC_USD),
    Account("ALPE", "O01", "Client omnibus, options", "portfolio", _S.OMNIBUS, "BTC", 340, 2.60, _MIXED),
    Account("SABL", "H01", "House, proprietary", "portfolio", _S.CONDOR, "BTC", 400, 2.10, _USD),
    Account("SABL", "C01", "Thornbury LLP, longs", "portfolio", _S.DIRECTIONAL_LONG, "BTC", 450, 2.60, _USD),
    Account("SABL", "C02", "Marlowe Volatility, straddles", "portfolio", _S.STRADDLE_SELLER, "BTC", 250, 1.90, _USDC),
    Account("SABL", "C03", "Ashdown Opportunities", "cross", _S.RISK_REVERSAL, "BTC", 200, 3.60, _DOLLARS),
    Account("SABL", "O01", "Client omnibus, options", "isolated", _S.OMNIBUS, "ETH", 120, 4.00, _MIXED),
    Account("QUAY", "H01", "House, proprietary", "portfolio", _S.CALENDAR, "ETH", 450, 2.00, _USDC),
    Account("QUAY", "C01", "Lamma Digital, longs", "cross", _S.DIRECTIONAL_LONG, "BTC", 300, 2.40, _USDC),
    Account("QUAY", "C02", "Victoria Basis Fund, carry", "portfolio", _S.CARRY, "ETH", 500, 2.40, _ETH_USDC),
    Account("QUAY", "C03", "Shek O Trading, shorts", "portfolio", _S.DIRECTIONAL_SHORT, "BTC", 350, 2.10, _USDC),
    Account("QUAY", "C04", "Tai Tam Partners, calls", "portfolio", _S.COVERED_WRITER, "ETH", 300, 2.80, _ETH_USDC),
    Account("PAMP", "H01", "House, proprietary", "portfolio", _S.TAIL_SELLER, "ETH", 500, 3.20, _USD),
    Account("PAMP", "C01", "Serra Dourada FIM, futures", "portfolio", _S.FUTURES_CALENDAR, "BTC", 600, 2.20, _USD),
    Account("PAMP", "C02", "Ipê Amarelo FIM, longs", "portfolio", _S.DIRECTIONAL_LONG, "ETH", 400, 1.85, _ETH_USDC),
    Account("PAMP", "C03", "Cerrado Ventures, straddles", "isolated", _S.STRADDLE_SELLER, "ETH", 120, 4.40, _USDC),
    Account("PAMP", "O01", "Client omnibus, mixed", "portfolio", _S.OMNIBUS, "ETH", 220, 2.30, _MIXED),
    # Books and collateral of these stand in margin_tasks/sample/products.py.
    Account("SABL", "H02", "House, product desk", "portfolio", _S.PRODUCTS, "BTC", 0, 0.00, ()),
    Account("HALV", "C03", "Lofoten Real Assets, tokens", "portfolio", _S.PRODUCTS, "BTC", 0, 0.00, ()),
    Account("LIND", "C04", "Birka Structured Products", "portfolio", _S.PRODUCTS, "BTC", 0, 0.00, ()),
    Account("ALPE", "C04", "Grimsel Overlay Fund", "portfolio", _S.PRODUCTS, "BTC", 0, 0.00, ()),
    Account("MARI", "C04", "Montseny Family Office", "cross", _S.PRODUCTS, "BTC", 0, 0.00, ()),
    Account("QUAY", "C05", "Peng Chau Trading", "isolated", _S.PRODUCTS, "BTC", 0, 0.00, ()),
)


def member_feed() -> pd.DataFrame:
    """The members feed."""
    rows = [
        (member.member_id, member.name, member.country, f"margin@{member.domain}.example", member.issuer_group)
        for member in MEMBERS
    ]
    frame = pd.DataFrame(rows, columns=["member_id", "member_name", "country", "contact_email", "issuer_group"])
    return frame.sort_values("member_id", ignore_index=True)


def account_feed() -> pd.DataFrame:
    """The accounts feed."""
    rows = [
        (account.account_id, account.member_id, account.name, account.account_type, "USD", account.rulebook_id)
        for account in ACCOUNTS
    ]
    columns = ["account_id", "member_id", "account_name", "account_type", "base_currency", "rulebook_id"]
    return pd.DataFrame(rows, columns=columns).sort_values("account_id", ignore_index=True)


def accounts_of(strategy: Strategy) -> tuple[Account, ...]:
    """Accounts that follow a strategy, in the order of the list."""
    return tuple(account for account in ACCOUNTS if account.strategy is strategy)
