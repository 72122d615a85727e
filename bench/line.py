"""One measurement and what is asked of it. Whether a goal is met is computed, never typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Fact = str | float | int | bool | None

_DIGITS = 6


@dataclass(frozen=True)
class Goal:
    """A bound on the value of a line, or on its ratio to the reference."""

    measure: Literal["value", "ratio"]
    sign: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{self.measure} {self.sign} {self.bound:,.10g}"

    def met(self, found: float | None) -> bool | None:
        """None where nothing was found."""
        if found is None:
            return None
        return found >= self.bound if self.sign == ">=" else found <= self.bound


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named value with its unit, beside a reference measured with it.

    note: why a value is missing and what to do about it, or what the two sides do differently. more: facts that follow
    the fixed keys, such as repeats, spread and threads.
    """

    name: str
    value: float | None
    unit: str
    reference: str | None = None
    reference_value: float | None = None
    goals: tuple[Goal, ...] = ()
    note: str | None = None
    more: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """value / reference_value."""
        if self.value is None or not self.reference_value:
            return None
        return self.value / self.reference_value

    @property
    def goal(self) -> str | None:
        return " and ".join(map(str, self.goals)) or None

    @property
    def met(self) -> bool | None:
        """Whether every goal is met; None without a goal, or where what could be measured does not decide it."""
        verdicts = [goal.met(self.value if goal.measure == "value" else self.ratio) for goal in self.goals]
        if False in verdicts:
            return False
        return None if not verdicts or None in verdicts else True

    def as_dict(self) -> dict[str, Fact]:
        """The line as it is printed: eight fixed keys in this order, then what else is known."""
        fixed: dict[str, Fact] = {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": _rounded(self.reference_value),
            "ratio": _rounded(self.ratio),
            "goal": self.goal,
            "met": self.met,
        }
        extra = {"note": self.note} if self.note else {}
        return fixed | {key: _rounded(fact) for key, fact in self.more.items()} | extra


def _rounded(fact: Fact) -> Fact:
    """A float to six significant digits: more are noise."""
    return float(f"{fact:.{_DIGITS}g}") if isinstance(fact, float) else fact
