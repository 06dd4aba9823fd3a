"""What histories say about parameters: prices read with suspicion, tails, volatility, dependence, liquidity."""
