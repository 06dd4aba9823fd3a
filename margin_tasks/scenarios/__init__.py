"""Scenarios as data: moves of price and volatility, and how much of each outcome counts."""
