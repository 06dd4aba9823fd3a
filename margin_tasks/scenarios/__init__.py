"""Scenarios as data: moves of the market, and how much of each outcome counts."""
