"""A lower bound on epsilon of differential privacy, from canaries in one training run."""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_open, check_whole

# Odd, so that the median is one of the bounds.
NUM_SPLITS = 51


def epsilon_lower_bound(
  member_scores: ArrayLike,
  nonmember_scores: ArrayLike,
  *,
  delta: float = 1e-5,
  confidence: float = 0.95,
  seed: int = 0,
) -> float:
  """The epsilon that an attack on one model shows its training to exceed.

  For training that is (epsilon, delta)-differentially private the result exceeds epsilon with
  a chance of at most 1 - `confidence`. It is a lower bound, from this attack on these
  canaries. It is no upper bound and no guarantee: a 0 says that nothing was shown, not that
  training is private, and a stronger attack may show more. Training without noise has no
  finite epsilon at all, and the largest bound that can be had grows only with the logarithm
  of the number of canaries.

  The method is that of one run (Steinke, Nasr & Jagielski 2023), as `jax_privacy.auditing`
  has it: how often it is right to call the highest scores members bounds epsilon. It assumes
  that each canary was made a member by a fair coin of its own, and that both sides were
  scored alike, by rules that were set without knowing the coins of these canaries. Scores
  need *not* be independent of each other, which those of one model never are; bounds from
  Clopper-Pearson intervals of TPR and FPR assume just that. A random half of fixed size
  stands in for the coins, and its weak negative dependence is ignored. Scores pooled over
  models that share samples do not meet the assumption.

  The threshold is chosen on one random half of the canaries and the bound is taken on the
  other. The result is the median over 51 splits, each at half the significance, which is
  valid by theorem 3.1 of Meinshausen, Meier & Buehlmann 2009 and does not hang on one split.
  The package's Bonferroni correction is not used: it counts only the corners of the ROC's
  hull, which the same scores have picked.

  Args:
    member_scores: f[m], higher means more likely a member; m at least 2, infinite scores are
      fine.
    nonmember_scores: f[n], n at least 2. Of the larger side a random part as large as the
      smaller is used, or else the coin would not be fair.
    delta: in (0, 1); of the claim that is tested, not to be chosen after seeing the scores.
    confidence: in (0.5, 1).
    seed: of the splits and of that part.

  Returns:
    The bound, at least 0.

  Raises:
    ModuleNotFoundError: jax-privacy, of the extra `dp`, is not installed.
    ValueError: a side has fewer than 2 scores, another rank or NaN, or delta or the
      confidence is out of range.
  """
  ranks = balanced_ranks(
    member_scores, nonmember_scores, delta=delta, confidence=confidence, seed=seed
  )
  auditing = _auditing()
  auditor = auditing.CanaryScoreAuditor(*ranks)
  bound = auditor.epsilon_one_run(
    significance=1.0 - confidence,
    delta=delta,
    threshold_strategy=auditing.MultiSplit(num_samples=NUM_SPLITS, seed=seed),
  )
  return max(0.0, float(bound))


def balanced_ranks(
  member_scores: ArrayLike,
  nonmember_scores: ArrayLike,
  *,
  delta: float,
  confidence: float,
  seed: int,
) -> np.ndarray:
  """Ranks i64[2,num] of as many members as non-members, of the arguments of a bound.

  Only the order of scores counts, and a score of +inf may be taken as never called a member.

  Args:
    member_scores: as of `epsilon_lower_bound`, like all others.
    nonmember_scores: f[n].
    delta: checked only.
    confidence: checked only.
    seed: of the part of the larger side.

  Raises:
    ValueError: as by `epsilon_lower_bound`.
  """
  members = _check_scores(member_scores, "member_scores")
  nonmembers = _check_scores(nonmember_scores, "nonmember_scores")
  check_open("delta", delta, 0.0, 1.0)
  check_open("confidence", confidence, 0.5, 1.0)
  check_whole("seed", seed, 0)
  rng = np.random.default_rng(seed)
  num = min(len(members), len(nonmembers))
  sides = [rng.permutation(side)[:num] for side in (members, nonmembers)]
  _, ranks = np.unique(np.concatenate(sides), return_inverse=True)
  return ranks.reshape(2, num)


def _auditing():
  try:
    from jax_privacy import auditing
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "epsilon_lower_bound needs the package jax-privacy, which could not be imported. "
      "Install it with: pip install -e '.[dp]'.",
      name="jax_privacy",
    ) from error
  return auditing


def _check_scores(scores, name):
  scores = check_numbers(name, scores).astype(np.float64)
  if scores.ndim != 1 or len(scores) < 2:
    raise ValueError(
      f"{name} have shape {list(scores.shape)}; expected one axis of at least 2 scores."
    )
  if np.isnan(scores).any():
    raise ValueError(f"{name} have {np.isnan(scores).sum()} NaN; expected scores only.")
  return scores
