"""The policy for a bound: chosen on known samples, to be judged on others.

The figure that is to meet the bound will be that of other samples. It differs from the known
samples' by the sampling error of both, so the distance from a figure to the end of its 95%
interval is taken sqrt(1 + known / reported) times: the end of an interval for a new figure, of
so many samples (a prediction interval). What models have in common is the same in both, and is
counted twice: a little too careful. Of those that meet the bound the most useful is taken, so
luck has a say too: docs/frontier.md has how often the choice met it in simulations.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from diffence_jax.audit.frontier import FrontierRow
from diffence_jax.metrics import Estimate

# A bound's flag to how its figure is spoken of.
FIGURES = {
  "max_auc": "highest attack AUC",
  "max_nll": "negative log-likelihood",
  "min_accuracy": "accuracy",
}


class Bound(NamedTuple):
  """What a figure is to be at most, or at least.

  Attributes:
    name: one of `FIGURES`.
    limit: the bound.
  """

  name: str
  limit: float

  def figure(self, row: FrontierRow) -> Estimate:
    """The figure that it is about."""
    return {"max_auc": row.often.auc, "max_nll": row.nll, "min_accuracy": row.accuracy}[
      self.name
    ]

  def is_met(self, value: float) -> bool:
    """Whether a value is within the bound."""
    return value >= self.limit if self.name == "min_accuracy" else value <= self.limit

  def worst(self, row: FrontierRow, widening: float) -> float:
    """The value that the figure of other samples is not to be worse than."""
    value, low, high = self.figure(row)
    if self.name == "min_accuracy":
      return max(value - widening * (value - low), 0.0)
    worst = value + widening * (high - value)
    return min(worst, 1.0) if self.name == "max_auc" else worst


def make_bound(**limits: float | None) -> Bound:
  """The one bound that is given.

  Args:
    **limits: `max_auc`, 0.5 to 1; `max_nll`, above 0; `min_accuracy`, 0 to 1; one of them, the
      others None.

  Raises:
    ValueError: there is none or more than one, or it is out of its range.
  """
  given = {name: limit for name, limit in limits.items() if limit is not None}
  if len(given) != 1:
    what = "none" if not given else " and ".join(f"--{name}" for name in given)
    raise ValueError(f"Got {what}; expected one bound: --max_auc, --max_nll or --min_accuracy.")
  ((name, limit),) = given.items()
  low, high = {"max_auc": (0.5, 1.0), "max_nll": (0.0, math.inf), "min_accuracy": (0.0, 1.0)}[
    name
  ]
  if not low <= limit <= high or not math.isfinite(limit):
    end = f"to {high:g}" if math.isfinite(high) else "or more"
    raise ValueError(f"--{name} is {limit:g}; expected a number of {low:g} {end}.")
  return Bound(name, limit)


def widening_of(num_known: int, num_reported: int) -> float:
  """How many times as far as an interval's end a figure of other samples may be."""
  return math.sqrt(1.0 + num_known / num_reported)


def choose_policy(rows: Sequence[FrontierRow], bound: Bound, widening: float) -> int:
  """The place of the policy to take, by known samples alone.

  Args:
    rows: of known samples.
    bound: that is to be met.
    widening: as `widening_of` has it.

  Returns:
    Of those whose worst value is within the bound: with `max_auc` the one of the lowest
    negative log-likelihood, else the one of the lowest AUC; of equals the first.

  Raises:
    ValueError: there is none; it says how near one comes.
  """
  worst = [bound.worst(row, widening) for row in rows]
  meeting = [at for at, value in enumerate(worst) if bound.is_met(value)]
  if not meeting:
    raise ValueError(_near_miss(rows, bound, worst))
  wanted = lambda at: (rows[at].nll.value, rows[at].often.auc.value)
  key = wanted if bound.name == "max_auc" else lambda at: wanted(at)[::-1]
  return min(meeting, key=key)


def _near_miss(rows, bound, worst):
  is_least = bound.name == "min_accuracy"
  at = worst.index(max(worst) if is_least else min(worst))
  # The figure itself, rounded so that it would be met.
  reached = (math.floor if is_least else math.ceil)(1000.0 * worst[at]) / 1000.0
  side, most = ("below", "at most") if is_least else ("above", "at least")
  return (
    f"No policy meets --{bound.name}={bound.limit:g}. {rows[at].name!r} comes nearest: its "
    f"{FIGURES[bound.name]} on known samples is {bound.figure(rows[at]).value:.3f}, on others "
    f"up to {reached:.3f}, {abs(worst[at] - bound.limit):.3f} {side} the bound; expected "
    f"{most} {reached:.3f}, or more samples and shadow models."
  ).replace("on others up to", "on others as low as" if is_least else "on others up to")


def overrides(row: FrontierRow) -> list[str]:
  """The flags that choose a row's policy, and how candidates are drawn, in a config.

  `--config.SETTING=VALUE` each.
  """
  key = row.policy.rpartition(":")[2]
  drawn = () if row.drawing is None else row.drawing._asdict().items()
  return [
    f"--config.purify.policies=({row.policy!r},)",
    *(f"--config.policies.{key}.{name}={value!r}" for name, value in row.options.items()),
    *(f"--config.purify.{name}={value}" for name, value in drawn),
  ]
