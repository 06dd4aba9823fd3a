"""SPAN risk parameter files as clearing houses publish them: bytes to typed columns, no arithmetic on them."""
