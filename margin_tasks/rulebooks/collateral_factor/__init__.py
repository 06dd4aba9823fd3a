"""Collateral factors: what assets support and what liabilities take up, by weights, size, tiers and caps."""
