"""Index and mark prices, forwards and volatility surfaces."""
