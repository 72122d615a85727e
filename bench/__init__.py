"""Measurements of this project beside references: `btcai bench NAME`."""
