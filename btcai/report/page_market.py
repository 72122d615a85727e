"""The page's last part: the market and its spans, and how everything was measured."""

from collections.abc import Mapping
from html import escape

from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.formats import sealed_words
from btcai.report.markup import Section, picture, section

_READ_FACTS = """<p>What a market that passes for Bitcoin's has to show: tails far fatter than the normal's, returns
that hardly remember and sizes that remember for days, a variance that grows almost as time does. Bars of the sealed
span are not counted.</p>"""

_METHOD = """<p>A decision taken when a bar closes fills at the next bar's open, worse by half the spread and by market
impact, less the fee; nothing fills on a missing bar. Baselines trade through the same fills and costs. Lots still open
at the end are valued at the last close.</p>
<p>Sharpe ratios are annual (365 days), from daily UTC returns without a risk-free rate. Intervals come from the
stationary bootstrap, which keeps runs of similar days together; differences to a baseline resample the same days of
both. A dash is a figure that is not defined: too few days, no trade, fewer than 5 of them
for what trades earn on average, or no variance. The walk-forward score is the mean
of the folds' Sharpe ratios; a fold without one counts as 0.</p>
<p>An edge is called proven only if every check of the gate passes, each with its threshold in the table under the
verdicts: luck among all configurations tried on this span or a part of it, superiority over the baselines, overfitting,
the difference to every baseline (its whole interval above 0, 95 % for all buckets together), the folds, and the net
return at higher costs, one bar later and under the harshest severity.</p>
<p>Forecasts count where their horizon ends inside the test span at a bar that is not missing. Their pinball loss is
divided by that of the training span's quantiles scaled by the volatility of the moment: below 1 the model knows more
than volatility. The information coefficient is the correlation of the predicted mean with the outcome; 95 % of those
of a forecast that knows nothing lie within the noise beside it. The temperature is what the log odds of a rise (by mean
and standard deviation) should have been divided by, with its 95 % interval: above 1 they were too sure.</p>
<p>Candles and forecast fans show bars up to the end of the test span alone. Entries and exits stand at the price at
which they filled, spread and impact inside. A decision's doubt is its predicted standard deviation over that of the
moment's volatility; how unfamiliar the market is to the network is its distance from the training span, 1 being
exceeded one time in a hundred.</p>"""


def market_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[Section]:
    """Facts, spans, method."""
    facts = picture(pictures.get("figures/facts.png"))
    looks = sealed_words(evidence.sealed_looks)
    sealed = f"<strong>Sealed span:</strong> {escape(evidence.sealed_text)}. No figure here has read it; {looks}."
    return [
        section("The market", _READ_FACTS if facts else "", facts),
        section(
            "Spans",
            picture(pictures.get("figures/spans.png")),
            f"<pre>{escape(evidence.splits_text)}</pre>",
            f"<p>{sealed}</p>",
        ),
        section("How this was measured", _METHOD),
    ]
