"""How many of those called members are members, where members are rare."""

from diffence_jax.checks import check_open
from diffence_jax.metrics.intervals import Estimate
from diffence_jax.metrics.roc import Rate


def precision(rate: Rate, prior: float) -> Estimate:
  """The share of members among those called so, by Bayes: from a TPR at a FPR.

    prior * TPR / (prior * TPR + (1 - prior) * FPR)

  An audit asks about as many members as non-members; whoever looks for members in the world
  meets few. The FPR is the limit that was asked for, and the interval is that of the TPR at it,
  which allows for the threshold's own sampling.

  Args:
    rate: as of `Roc.tpr_at_fpr`, at a limit above 0.
    prior: the share of members among all that the attack is run on, in (0, 1).

  Returns:
    The precision with its 95% interval, in [0, 1].

  Raises:
    ValueError: the prior is out of its range, or the limit is 0.

  Example:
    >>> import diffence_jax as dj
    >>> curve = dj.metrics.roc([3.0, 2.0, 1.0, 0.5], [2.5, 0.5, 0.0, -1.0])
    >>> rate = curve.tpr_at_fpr(0.25)  # 3 of 4 members, 1 of 4 non-members
    >>> round(dj.metrics.precision(rate, 0.1).value, 2)
    0.25
  """
  check_open("prior", prior, 0.0, 1.0)
  check_open("rate.limit", rate.limit, 0.0, 1.0)

  def of(tpr):
    return prior * tpr / (prior * tpr + (1.0 - prior) * rate.limit)

  return Estimate(of(rate.value), of(rate.low), of(rate.high))
