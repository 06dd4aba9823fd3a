"""Instruments as columns and what one contract of each is worth."""
