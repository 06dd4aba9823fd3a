"""Standard margin of options: by position, and by expiry where spreads are recognised by their greatest loss."""
