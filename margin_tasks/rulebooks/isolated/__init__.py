"""Isolated margin: maintenance by notional tiers, liquidation prices of single positions, levels above maintenance."""
