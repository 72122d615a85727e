"""btcai: four trading agents for Bitcoin, one per timeframe, trained from the shortest to the longest."""

__version__ = "0.1.0"
