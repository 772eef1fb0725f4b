"""Attacks with shadow models on every predictor: on the target, and on each model in turn."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from diffence_jax import metrics
from diffence_jax.attacks.lira import VARIANCES, lira
from diffence_jax.attacks.rmia import rmia
from diffence_jax.audit.answers import Pool, Statistics
from diffence_jax.audit.rows import LIMITS
from diffence_jax.metrics import Estimate

# Where one variant of LiRA stands for all: the one that needs the fewest models.
_VARIANCE = "global"
# Attacks that are run at every number of queries, with every model as the target in turn.
_REPEATED_ATTACKS = ("confidence", "lira_online", "rmia_online")
# A bound on epsilon takes seconds, and is of one model.
_EPSILON_MODELS = 4


class View(NamedTuple):
  """One target's and the shadow models' answers at one number of queries.

  Attributes:
    target_phi: f[N,A].
    target_log_p: f[N,A].
    shadow_phi: f[S,N,A].
    shadow_log_p: f[S,N,A].
    membership: bool[S,N], of the shadow models.
    population: bool[N], samples that the attacker knows as non-members of the target.
  """

  target_phi: np.ndarray
  target_log_p: np.ndarray
  shadow_phi: np.ndarray
  shadow_log_p: np.ndarray
  membership: np.ndarray
  population: np.ndarray


def lira_scores(view: View, *, online: bool, variance: str = _VARIANCE) -> np.ndarray:
  """LiRA on all versions of an image jointly, f64[N]."""
  return lira(
    view.target_phi, view.shadow_phi, view.membership, online=online, variance=variance
  )


def rmia_scores(view: View, *, online: bool) -> np.ndarray:
  """RMIA on the mean probability over an image's versions, f64[N]."""
  target, shadow = _mean_p(view.target_log_p), _mean_p(view.shadow_log_p)
  z = view.population
  return rmia(
    target,
    shadow,
    view.membership,
    target[z],
    shadow[:, z],
    view.membership[:, z],
    online=online,
    break_ties=True,
  )


# Attack to scores f64[N] of a view; those that every table shows.
MAIN_ATTACKS = {
  "confidence": lambda view: view.target_phi.mean(axis=1).astype(np.float64),
  "lira_online": lambda view: lira_scores(view, online=True),
  "lira_offline": lambda view: lira_scores(view, online=False),
  "rmia_online": lambda view: rmia_scores(view, online=True),
  "rmia_offline": lambda view: rmia_scores(view, online=False),
}


def target_scores(view: View) -> dict[str, np.ndarray]:
  """Every shadow-model attack on the target: attack to scores f64[N]."""
  scores = {}
  for online in (True, False):
    mode = "online" if online else "offline"
    for variance in VARIANCES:
      name = f"lira_{mode}_{variance}"
      scores[name] = lira_scores(view, online=online, variance=variance)
    scores[f"rmia_{mode}"] = rmia_scores(view, online=online)
  return scores


def view_of(
  target: Statistics, shadow: Statistics, membership: np.ndarray, pool: Pool, at: int = 0
) -> View:
  """The target against the ensemble, both asked `queries[at]` times.

  The canaries are left out: the target's statistics are of the pool without them.
  """
  rows = ~pool.is_canary
  at_shadow = min(at, shadow.phi.shape[-1] - 1)
  return View(
    target.phi[..., at],
    target.log_p[..., at],
    shadow.phi[..., at_shadow][:, rows],
    shadow.log_p[..., at_shadow][:, rows],
    membership[:, rows],
    (pool.is_known & ~pool.is_member)[rows],
  )


def adaptive_rows(
  target: Mapping[str, Statistics],
  shadow: Mapping[str, Statistics],
  membership: np.ndarray,
  pool: Pool,
  *,
  queries: Sequence[int],
  reported: np.ndarray,
  inputs: str = "same",
) -> list[dict[str, Any]]:
  """What repeating a query gains on every predictor, for the target.

  Args:
    target: predictor to the target's statistics of the pool without the canaries.
    shadow: predictor to the ensemble's, of the whole pool.
    membership: bool[S,N].
    pool: the samples.
    queries: the numbers of queries k, as in the statistics' last axis.
    reported: bool[N], the samples that figures are about.
    inputs: what is sent: the "same" image every time, or "near duplicates" of it.

  Returns:
    One row for every predictor, k and attack of `MAIN_ATTACKS`; LiRA and RMIA once more with
    shadow models that are asked without the defense.
  """
  rows = []
  is_member = pool.is_member[~pool.is_canary]
  reported = reported[~pool.is_canary]
  for name, statistics in target.items():
    asked = {"defended": shadow[name]}
    if name != "undefended":
      asked["raw"] = shadow["undefended"]
    for at in range(statistics.phi.shape[-1]):
      for models, ensemble in asked.items():
        view = view_of(statistics, ensemble, membership, pool, at)
        for attack, scorer in MAIN_ATTACKS.items():
          if models == "raw" and attack == "confidence":
            continue
          scores = scorer(view)
          roc = metrics.roc(scores[reported & is_member], scores[reported & ~is_member])
          rows.append(
            {
              "predictor": name,
              "attack": attack,
              "queries": queries[at],
              "inputs": inputs,
              "shadow_models": models,
              "auc": Estimate(roc.auc, *roc.auc_interval)._asdict(),
              "tpr_at_fpr": [roc.tpr_at_fpr(limit)._asdict() for limit in LIMITS],
            }
          )
  return rows


def leave_one_out(
  shadow: Statistics, membership: np.ndarray, pool: Pool, at: int = 0
) -> Iterator[View]:
  """Every shadow model as the target in turn, asked `queries[at]` times, against the others.

  Its partner was trained on the very samples that it was not trained on: leaving out both
  leaves as many models with as without every sample, and nothing that gives the answer away.
  All models share re-generations: the more queries, the more of the noise do they have in
  common, which favours the attacker a little.
  """
  pair = np.arange(len(membership)) // 2
  for target in range(len(membership)):
    others = pair != pair[target]
    yield View(
      shadow.phi[target, ..., at],
      shadow.log_p[target, ..., at],
      shadow.phi[others, ..., at],
      shadow.log_p[others, ..., at],
      membership[others],
      pool.is_known & ~membership[target],
    )


def leave_one_out_rows(
  shadow: Mapping[str, Statistics],
  membership: np.ndarray,
  pool: Pool,
  *,
  queries: Sequence[int],
  reported: np.ndarray,
  num_resamples: int,
  seed: int,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, np.ndarray]]:
  """Figures pooled over all shadow models as targets, each against all pairs but its own.

  There are S times as many scores as for the target alone, so low false-positive rates can be
  told; the intervals resample pairs of models.

  Args:
    shadow: predictor to the ensemble's statistics.
    membership: bool[S,N].
    pool: the samples.
    queries: the numbers of queries k, as in the statistics' last axis.
    reported: bool[N], the samples that figures are about; canaries have a table of their own.
    num_resamples: of the bootstrap.
    seed: of the bootstrap.

  Returns:
    "samples": rows for every predictor, main attack and k (above 1: fewer attacks);
    "canaries": the same on the canaries, at one query; "vulnerability", and "epsilon" (empty
    without jax-privacy): rows for every predictor. And the arrays of the figures, for every
    predictor p the ROC of online LiRA with its band: "p/loo_fpr", "p/loo_tpr", "p/loo_low",
    "p/loo_high".
  """
  resample = {"seed": seed, "num_resamples": num_resamples}
  tables = {"samples": [], "canaries": [], "vulnerability": [], "epsilon": []}
  arrays, undefended = {}, {}
  chosen = {"samples": ~pool.is_canary & reported, "canaries": pool.is_canary}
  for name, statistics in shadow.items():
    for at in range(statistics.phi.shape[-1]):
      scores = {attack: [] for attack in (_REPEATED_ATTACKS if at else MAIN_ATTACKS)}
      for view in leave_one_out(statistics, membership, pool, at):
        for attack, per_model in scores.items():
          per_model.append(MAIN_ATTACKS[attack](view))
      for attack, per_model in scores.items():
        scored = np.stack(per_model)
        for table, samples in chosen.items():
          if not samples.any() or (at and table == "canaries"):
            continue
          own, members = _by_pair(scored[:, samples]), _by_pair(membership[:, samples])
          roc = metrics.clustered_roc(own, members, **resample, limits=LIMITS)
          row = {
            "predictor": name,
            "attack": attack,
            "queries": queries[at],
            "num_models": len(membership),
            "auc": roc.auc._asdict(),
            "tpr_at_fpr": [roc.tpr_at_fpr(limit)._asdict() for limit in LIMITS],
          }
          before = undefended.setdefault((table, attack), own)
          if before is not own:
            change = metrics.clustered_difference(own, before, members, **resample)
            row["auc_change"] = change._asdict()
          tables[table].append(row)
          if table == "samples" and attack == "lira_online" and not at:
            for figure in ("fpr", "tpr", "low", "high"):
              arrays[f"{name}/loo_{figure}"] = getattr(roc.band, figure)
      if not at:
        scored = np.stack(scores["lira_online"])
        tables["vulnerability"].append(_vulnerability(name, scored, membership, pool, seed))
        tables["epsilon"] += _epsilon(name, scored, membership)
  return tables, arrays


def _by_pair(values):
  """[S,N] to [S/2,2N]: two models that share a pair are resampled together."""
  return values.reshape(len(values) // 2, -1)


def _epsilon(name, scores, membership):
  """Lower bounds on epsilon for the first models; no row without jax-privacy.

  Each is a 95% bound of one training run, whose samples, the canaries among them, were made
  members by chance. Neither the highest nor the lowest of several is one.
  """
  try:
    bounds = [
      metrics.epsilon_lower_bound(own[members], own[~members])
      for own, members in zip(scores[:_EPSILON_MODELS], membership, strict=False)
    ]
  except ModuleNotFoundError:
    return []
  described = {"first": bounds[0], "lowest": min(bounds), "highest": max(bounds)}
  models = {"num_models": len(bounds), "num_samples": scores.shape[1]}
  return [{"predictor": name, **models, **described}]


def _vulnerability(name, scores, membership, pool, seed):
  """How far single examples stand out: quantiles of every example's own AUC over models.

  An AUC of few models scatters; how far shows the same with membership drawn at random.
  """
  scores, membership = scores[:, ~pool.is_canary], membership[:, ~pool.is_canary]
  shuffled = np.random.default_rng(seed).permuted(membership, axis=0)
  quantiles = (0.5, 0.9, 0.99, 1.0)

  def describe(members):
    aucs = _example_aucs(scores, members)
    return dict(zip(map(str, quantiles), np.quantile(aucs, quantiles).tolist(), strict=True))

  return {
    "predictor": name,
    "num_examples": scores.shape[1],
    "auc_quantiles": describe(membership),
    "auc_quantiles_by_chance": describe(shuffled),
  }


def _example_aucs(scores, membership):
  """For every example the AUC of its scores by models with it against those without it."""
  ranks = scipy.stats.rankdata(scores, axis=0)
  count = membership.sum(axis=0)
  above = np.sum(ranks * membership, axis=0) - count * (count + 1) / 2.0
  return above / (count * (len(membership) - count))


def _mean_p(log_p):
  """The logarithm of the mean probability over the last axis, at most 0."""
  if log_p.shape[-1] == 1:
    return np.asarray(log_p[..., 0], np.float64)
  with np.errstate(divide="ignore"):
    return np.minimum(np.log(np.mean(np.exp(log_p.astype(np.float64)), axis=-1)), 0.0)
