"""SPAN: performance bonds from risk arrays, spread charges and credits, and a minimum for short options."""
