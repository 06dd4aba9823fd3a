"""Delivery of notices and messages: outbox, attempts, acknowledgements."""
