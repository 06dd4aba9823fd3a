"""Collateral: eligibility, haircuts and the value that counts towards an account's equity."""
