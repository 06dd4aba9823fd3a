"""Estimators, anti-procyclicality, back-tests: pure functions of arrays and frozen parameters."""
