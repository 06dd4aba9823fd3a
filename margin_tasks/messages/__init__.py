"""ISO 20022 messages of the margin call dialogue and of member statements: built, and read strictly."""
