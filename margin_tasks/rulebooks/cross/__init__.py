"""Cross margin: liquidation prices over a pooled balance, margin that grows with open interest and with size."""
