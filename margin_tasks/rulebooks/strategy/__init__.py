"""Strategy-based margin of listed options: covered writes, spreads and straddles, chosen for the least requirement."""
