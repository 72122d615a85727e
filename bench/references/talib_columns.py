"""TA-Lib's indicators over the same bars, as the bar for the feature pipeline's speed (not for its numbers)."""

from btcai.schema import Bars, FloatArray

COLUMNS = 33


def talib_columns(bars: Bars) -> list[FloatArray]:
    """33 columns (T,): momentum, trend, volatility, volume, position. Needs TA-Lib (the extra `bench`)."""
    import talib as ta

    high, low, close, volume = bars.high, bars.low, bars.close, bars.volume
    return [
        ta.RSI(close, 14),
        ta.RSI(close, 28),
        *ta.MACD(close),
        ta.ATR(high, low, close, 14),
        ta.NATR(high, low, close, 14),
        *ta.BBANDS(close, 20),
        *(ta.EMA(close, window) for window in (9, 21, 50, 200)),
        ta.SMA(close, 20),
        ta.SMA(close, 50),
        ta.ADX(high, low, close, 14),
        ta.PLUS_DI(high, low, close, 14),
        ta.MINUS_DI(high, low, close, 14),
        ta.OBV(close, volume),
        *ta.STOCH(high, low, close),
        ta.STOCHRSI(close)[0],
        ta.CCI(high, low, close, 14),
        ta.WILLR(high, low, close, 14),
        ta.MFI(high, low, close, volume, 14),
        ta.ROC(close, 10),
        ta.MOM(close, 10),
        *ta.AROON(high, low, 25),
        ta.STDDEV(close, 20),
        ta.STDDEV(close, 100),
        ta.SUM(close * volume, 20) / ta.SUM(volume, 20),
    ]
