"""Reference tests: numbers that clearing houses, exchanges and other engines published, reproduced case by case."""
