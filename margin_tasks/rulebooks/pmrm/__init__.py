"""Portfolio margin of an on-chain venue, versions 1 and 2: an underlying's options, perpetual and collateral."""
