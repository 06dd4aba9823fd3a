"""Risk arrays, the profit and loss of accounts in scenarios, and the day's settlement."""
