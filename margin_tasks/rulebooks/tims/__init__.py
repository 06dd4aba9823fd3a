"""Risk-based portfolio margin of listed options: ten price moves for each class group, offsets between class groups."""
