"""The features: names, formulas, units, sources and warm-ups, once. docs/features.md is printed from here."""

from dataclasses import dataclass

WARMUP_BARS = 2016
"""Row t of the features depends on rows t - WARMUP_BARS .. t and on nothing else."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of MarketData.features."""

    name: str
    family: str
    formula: str
    unit: str
    source: str
    warmup_bars: int
    """Rows before t that it reads where sigma's 288 bars are at least half known; after longer gaps up to 2016."""


def _family(family: str, *rows: tuple[str, str, str, str, int]) -> tuple[Feature, ...]:
    return tuple(
        Feature(name=name, family=family, formula=formula, unit=unit, source=source, warmup_bars=warmup_bars)
        for name, formula, unit, source, warmup_bars in rows
    )


_LOG_RETURNS = "Campbell, Lo, MacKinlay 1997, ch. 1"
_IMBALANCE = "order imbalance, Chordia, Roll, Subrahmanyam 2002, a bar's volume signed by its body"

FEATURES = (
    *_family(
        "returns",
        *(
            (f"return_{h}", f"log(close / close {h} bars ago)", f"sigma * sqrt({h})", _LOG_RETURNS, max(h, 288))
            for h in (1, 3, 12, 36, 72, 288, 2016)
        ),
    ),
    *_family(
        "volatility",
        ("log_sigma", "log(sigma)", "log of log return", "realised volatility, Andersen, Bollerslev 1998", 288),
        ("vol_ratio_12_288", "log(std_12(r) / std_288(r))", "log ratio", "Corsi 2009 (HAR: short over long)", 288),
        ("vol_ratio_72_288", "log(std_72(r) / std_288(r))", "log ratio", "Corsi 2009", 288),
        ("vol_ratio_288_2016", "log(std_288(r) / std_2016(r))", "log ratio", "Corsi 2009", 2016),
        (
            "parkinson_std_72",
            "log(sqrt(mean_72(log(high / low)^2) / (4 log 2)) / std_72(r))",
            "log ratio",
            "Parkinson 1980: range over close-to-close volatility, 0 for a random walk",
            72,
        ),
        (
            "jump_288",
            "1 - pi / 2 * mean_288(|r[t] r[t-1]|) / mean_288((r[t]^2 + r[t-1]^2) / 2)",
            "1 - pi / 2 .. 1",
            "bipower variation, Barndorff-Nielsen, Shephard 2004",
            289,
        ),
        (
            "signed_variance_288",
            "mean_288(r |r|) / mean_288(r^2)",
            "-1 .. 1",
            "realised semivariance, Barndorff-Nielsen, Kinnebrock, Shephard 2010",
            288,
        ),
    ),
    *_family(
        "range",
        ("range_position_288", "2 (close - low_288) / (high_288 - low_288) - 1", "-1 .. 1", "stochastic %K, Lane", 287),
        (
            "range_position_2016",
            "2 (close - low_2016) / (high_2016 - low_2016) - 1",
            "-1 .. 1",
            "stochastic %K, Lane",
            2015,
        ),
        ("drawdown_2016", "log(close / high_2016)", "sigma * sqrt(2016), <= 0", "Magdon-Ismail, Atiya 2004", 2015),
        ("body", "(close - open) / (high - low)", "-1 .. 1", "candlestick, Nison 1991", 0),
        (
            "upper_wick",
            "(high - max(open, close)) / (high - low); with a range, the lower wick is 1 - |body| - upper_wick",
            "0 .. 1",
            "candlestick, Nison 1991",
            0,
        ),
        ("bar_range", "log((high - low) / close / sigma)", "log ratio", "Parkinson 1980", 288),
    ),
    *_family(
        "volume",
        ("volume_ratio_1_288", "log((v + e) / (mean_288(v) + e))", "log ratio", "Karpoff 1987", 2015),
        ("volume_ratio_12_288", "log((mean_12(v) + e) / (mean_288(v) + e))", "log ratio", "Karpoff 1987", 2015),
        ("volume_ratio_288_2016", "log((mean_288(v) + e) / (mean_2016(v) + e))", "log ratio", "Karpoff 1987", 2015),
        (
            "imbalance_12",
            "sum_12(v sign(close - open)) / sum_12(v)",
            "-1 .. 1",
            _IMBALANCE,
            11,
        ),
        (
            "imbalance_72",
            "sum_72(v sign(close - open)) / sum_72(v)",
            "-1 .. 1",
            _IMBALANCE,
            71,
        ),
        (
            "money_flow_72",
            "sum_72(v (2 close - high - low) / (high - low)) / sum_72(v)",
            "-1 .. 1",
            "Chaikin money flow",
            71,
        ),
        ("volume_move_288", "correlation_288(v, |r|)", "-1 .. 1", "Karpoff 1987", 288),
        (
            "vwap_twap_288",
            "log(sum_288(v close) / sum_288(v) / mean_288(close))",
            "sigma * sqrt(288)",
            "VWAP, Berkowitz, Logue, Noser 1988, over the mean price: where the volume was",
            288,
        ),
    ),
    *_family(
        "trend",
        ("trend_72", "correlation_72(close, t)", "-1 .. 1", "signed root of a regression's R^2", 71),
        ("trend_288", "correlation_288(close, t)", "-1 .. 1", "signed root of a regression's R^2", 287),
        ("trend_2016", "correlation_2016(close, t)", "-1 .. 1", "signed root of a regression's R^2", 2015),
    ),
    *_family(
        "momentum",
        ("rsi_14", "2 sum_14(rises) / sum_14(|changes|) - 1", "-1 .. 1", "Cutler's RSI (simple means)", 14),
        ("efficiency_72", "|mean_72(r)| / mean_72(|r|)", "0 .. 1", "efficiency ratio, Kaufman 1995", 72),
        ("efficiency_288", "|mean_288(r)| / mean_288(|r|)", "0 .. 1", "efficiency ratio, Kaufman 1995", 288),
    ),
    *_family(
        "mean reversion",
        ("bollinger_20", "(close - mean_20(close)) / std_20(close)", "std", "Bollinger 2001", 19),
        ("bollinger_144", "(close - mean_144(close)) / std_144(close)", "std", "Bollinger 2001", 143),
    ),
    *_family(
        "microstructure",
        ("roll_72", "2 sqrt(max(0, -mean_72(r[t] r[t-1])))", "sigma", "effective spread, Roll 1984", 288),
        (
            "corwin_schultz_288",
            "mean_288 of the two-bar high-low spread, negative ones 0",
            "sigma",
            "Corwin, Schultz 2012",
            288,
        ),
        (
            "illiquidity_72_2016",
            "log of mean_72(|r|) / (mean_72(v close) + e) over the same of 2016 bars",
            "log ratio",
            "Amihud 2002 as a ratio of means: a bar hardly traded cannot own it",
            2016,
        ),
    ),
    *_family(
        "regime",
        (
            "autocorrelation_288",
            "mean_288(r[t] r[t-1]) / mean_288((r[t]^2 + r[t-1]^2) / 2)",
            "-1 .. 1",
            "Box, Jenkins 1970, around 0",
            289,
        ),
        (
            "variance_ratio_12_288",
            "log(mean_288((log return of 12 bars)^2) / 12 / mean_288(r^2)) / 2",
            "log ratio",
            "Lo, MacKinlay 1988, around 0",
            299,
        ),
        (
            "range_ratio_288",
            "log(log(high_288 / low_288) / sqrt(288) / sigma)",
            "log ratio",
            "range over volatility, Feller 1951, Parkinson 1980; around 0.5 for a random walk",
            288,
        ),
    ),
    *_family(
        "calendar",
        ("hour_sin", "sin of the close's place in the UTC day", "-1 .. 1", "Andersen, Bollerslev 1997", 0),
        ("hour_cos", "cos of the same", "-1 .. 1", "Andersen, Bollerslev 1997", 0),
        ("weekday_sin", "sin of its place in the week, Monday 00:00 UTC = 0", "-1 .. 1", "French 1980", 0),
        ("weekday_cos", "cos of the same", "-1 .. 1", "French 1980", 0),
        ("funding_sin", "sin of its place in the 8 hours to 00, 08, 16 UTC", "-1 .. 1", "perpetuals' funding times", 0),
        ("funding_cos", "cos of the same", "-1 .. 1", "perpetuals' funding times", 0),
    ),
    *_family("mask", ("mask", "1 where the bar is present, 0 where it is missing", "0 or 1", "", 0)),
)
"""One record a column, in order; the columns of a family lie side by side."""

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def columns_of(family: str) -> slice:
    """Where the family's columns lie."""
    places = [place for place, feature in enumerate(FEATURES) if feature.family == family]
    return slice(places[0], places[-1] + 1)


INTRODUCTION = f"""# Features

{len(FEATURES) - 1} features and a mask, float32, one row a bar of the full 5-minute grid. Row t is known when bar t
closed and reads rows t - {WARMUP_BARS} .. t, nothing else. All are dimensionless: bounded, logs, or in units of sigma.

- r: log return of one bar, v: its volume. std, mean, sum, high, low with a number: over the last so many grid rows,
  those of them that are known. No averages without an end (EMA, Wilder): a window is finite.
- sigma: std_288(r), where less than half of it is known std_2016(r), then 0.001; at least 0.00001, as every
  volatility and range before its log.
- e: 1 % of the mean of 2016 bars.
- A ratio whose denominator is 0 (a bar without range, flat prices) is 0. Where less than half of a window is known, or
  nothing traded in the week, a feature is undefined and 0, as is one beyond float32. A return counts from the oldest
  close known in its bars.
- A missing bar is a row of zeros but for log_sigma, so that a forecast has its unit there.
- Warm-up: rows before t that the feature reads; where less than half of 288 bars is known, those in units of sigma
  read {WARMUP_BARS}.

| feature | family | formula | unit or range | source | warm-up, bars |
|---|---|---|---|---|---|
"""


def markdown() -> str:
    """docs/features.md."""
    return INTRODUCTION + "".join(_line(feature) for feature in FEATURES)


def _line(feature: Feature) -> str:
    formula = feature.formula.replace("|", "\\|")
    return (
        f"| {feature.name} | {feature.family} | `{formula}` | {feature.unit} | {feature.source}"
        f" | {feature.warmup_bars} |\n"
    )
