"""Margin calls: requirement against equity, and what is called, by when."""
