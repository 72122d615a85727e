"""What the server answers, as /openapi.json says it. Nothing is built from these: answers are serialised by hand."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from btcai.schema import Intervals
from btcai.serving.requests import Bucket

Number = float | None
"""null where a graph or a sum gave none that is finite."""

ActionName = Literal["HOLD", "BUY", "SELL", "CLOSE_ALL"]
Edge = Literal["proven", "none"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Refused(_Answer):
    """Of a request that was not answered."""

    error: str
    """The rule, the value that was given, and the remedy."""


class ForecastAnswer(_Answer):
    """The log return over the next horizon_bars, calibrated; quantiles at 5, 10, 25, 50, 75, 90 and 95 %."""

    horizon_bars: int
    mean: Number
    std: Number
    quantiles: list[Number]


class StepAnswer(_Answer):
    """One link of the chain; score (-1 .. 1, bullish above 0) and confidence (0 .. 1) are null where there is none."""

    name: str
    score: Number
    confidence: Number
    sentence: str
    facts: dict[str, Number]


class RecalledAnswer(_Answer):
    """What followed situations like this one; nearest: close_ts_ns, distance and log return of the most alike."""

    n: int
    mean_outcome: Number
    hit_rate: Number
    confidence: Number
    nearest: list[tuple[int, Number, Number]]


class ReasoningAnswer(_Answer):
    """Every step that leads to a decision, in order."""

    bucket: Bucket
    close_ts_ns: int
    action: ActionName
    size_frac: Number
    conviction: Number
    account: str
    model_version: str
    data_version: str
    steps: list[StepAnswer]
    recalled: RecalledAnswer | None


class DecisionAnswer(_Answer):
    """A decision with everything it rests on: the fields of `btcai decide --json`.

    close_ts_ns: ns since 1970 UTC; size_frac: of equity, for the lot that the action opens; probabilities: of HOLD,
    BUY, SELL, CLOSE_ALL; intervals: adaptive where a watched market's quantiles follow the outcomes of what it was
    asked before, static where they are the bundle's; reasoning: where explain asked for it.
    """

    bucket: Bucket
    close_ts_ns: int
    action: ActionName
    size_frac: Number
    probabilities: list[Number]
    value: Number
    forecasts: list[ForecastAnswer]
    unfamiliarity: Number
    model_version: str
    data_version: str
    intervals: Intervals
    note: str
    edge: Edge
    reasoning: ReasoningAnswer | None = None


class RefusedQuestion(Refused):
    """In place of a decision."""

    bucket: Bucket


class BatchAnswer(_Answer):
    """Of each question its decision, or what is wrong with it, in the order they were asked."""

    answers: list[DecisionAnswer | RefusedQuestion]


class MarketState(_Answer):
    """How many bars a market keeps, and when its newest one closed: ns since 1970 UTC, and as text."""

    bars_kept: int
    last_close_ts_ns: int
    last_close: str
    age_s: float


class AppendAnswer(MarketState):
    """A market that went on, or began."""

    market: str
    bars_given: int


class HealthAnswer(_Answer):
    """The process lives."""

    status: str


class BundleState(_Answer):
    """Version of the bundle in use, null without one; why a newer one was refused, null where none was."""

    in_use: str | None
    refused: str | None


class ReadyAnswer(_Answer):
    """Whether every bucket to serve has a bundle in use."""

    ready: bool
    buckets: dict[str, BundleState]
    markets: dict[str, MarketState]


class BundleRecord(_Answer):
    """What is on record of a bundle in use; registered_version is null of one that nobody registered."""

    model_version: str
    data_version: str
    registered_version: int | None
    edge: Edge
    in_use_since_ns: int


class VersionAnswer(_Answer):
    """The program's version and its bundles'."""

    btcai: str
    bundles: dict[str, BundleRecord]


REFUSALS = {
    400: "The body is no JSON, or (as text) the host's name is another",
    401: "The token is missing or wrong",
    404: "The market was given no bars since the server started",
    408: "The body took too long",
    409: "The bars do not follow the market's last one",
    413: "The body is too large",
    422: "The request is wrong: a field, the bars or the account",
    500: "The server failed; its log says why",
    503: "No bundle of that bucket is in use, or too many requests wait",
}
ALWAYS = (400, 408, 413, 500)
"""Of any request."""

Responses = dict[int | str, dict[str, Any]]
"""As FastAPI takes them: by status."""


def answers(model: type[BaseModel], *statuses: int) -> Responses:
    """An endpoint's answers: the model at 200, Refused at each other status."""
    return {200: {"model": model, "description": (model.__doc__ or "").split("\n")[0]}} | refusals(*statuses)


def refusals(*statuses: int) -> Responses:
    """Refused at each status and at those of any request; a host of another name is told so as text."""
    found: Responses = {
        status: {"model": Refused, "description": REFUSALS[status]} for status in sorted({*statuses, *ALWAYS})
    }
    found[400]["content"] = _TEXT
    return found


_TEXT = {"text/plain": {"schema": {"type": "string"}}}
READY = answers(ReadyAnswer, 401) | {503: {"model": ReadyAnswer, "description": "A bucket has no bundle in use"}}
METRICS = {200: {"content": _TEXT, "description": "Prometheus's text format"}} | refusals(401)
