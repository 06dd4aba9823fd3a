"""Portfolio margin of centralised exchanges: extended matrix, risk units, scan with a minimum for delta."""
