"""Margin methodologies: frozen, versioned configuration composed of named blocks."""
