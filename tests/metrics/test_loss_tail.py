"""The loss attack's TNR at a low FNR, against a closed form and a loop."""

import numpy as np
import pytest

from diffence_jax import metrics


def test_of_exponential_losses_it_is_a_power_of_the_limit():
  """Members' losses above t are e^(-a t) of them, non-members' e^(-b t): limit^(b / a)."""
  num, a, b = 200_000, 2.0, 0.5
  places = (np.arange(num) + 0.5) / num
  members, nonmembers = (-np.log(places) / rate for rate in (a, b))
  for limit in (0.001, 0.01, 0.1):
    found = metrics.loss_tail(members, nonmembers, limit=limit)
    assert found.value == pytest.approx(limit ** (b / a), rel=5e-3)
    # The same losses on both sides: nothing is missing in the tail.
    assert metrics.loss_tail(members, members, limit=limit).value == pytest.approx(limit)


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.3])
def test_it_is_the_loop_over_thresholds(limit):
  rng = np.random.default_rng(0)
  members, nonmembers = rng.exponential(1.0, 40).round(1), rng.exponential(2.0, 30).round(1)
  shares = [
    np.mean(nonmembers > t) for t in [*members, *nonmembers] if np.mean(members > t) <= limit
  ]
  found = metrics.loss_tail(members, nonmembers, limit=limit)
  assert found.value == max(shares) and found.num == 40
  assert found.low <= found.value <= found.high


def test_mistakes_are_named():
  with pytest.raises(ValueError, match=r"limit is 1\.5"):
    metrics.loss_tail([1.0], [2.0], limit=1.5)
  with pytest.raises(ValueError, match="member_losses are"):
    metrics.loss_tail(["a"], [2.0])
