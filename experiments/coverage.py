"""How often the 95% intervals hold the truth, in simulated records.

    python experiments/coverage.py --output=coverage.json
    python experiments/coverage.py --part=examples --output=examples.json
    python experiments/coverage.py --part=bounds --output=bounds.json

First, one target: members' scores are a law shifted by d, non-members' the law itself, so that
the AUC and the TPR at a FPR are known. Then every model in turn: phi of S models in
complementary pairs, whose levels differ, about N samples of different difficulty, scale and
leak; LiRA online with the global variance scores each model against all pairs but its own, once
undefended and once behind a noise; where there are few models, once more without each pair, for
the intervals. Where there is a leak the truth is the mean over all runs, which leaving a pair
out shares with fresh targets.

Last, single examples: their own AUCs, fold by fold, and quantiles over examples. The truth of a
quantile is that of all runs together; that of an example's AUC the mean over runs in which the
examples are the same, and only the models are others. And bounds: how often those on epsilon by
f-DP are above the truth, and what share of those named at a false discovery rate is false.

Beside our intervals stand those that many print: of the proportion at the threshold that was
found, and of models alone. Prints tables, and writes them as JSON.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import scipy.special
import scipy.stats
from absl import app, flags
from tqdm import tqdm

from diffence_jax import metrics
from diffence_jax.attacks.lira import lira
from diffence_jax.audit.jackknife import ENOUGH_MODELS
from diffence_jax.metrics.clustered import auc_estimate, auc_shares
from diffence_jax.metrics.discoveries import most_named
from diffence_jax.metrics.epsilon_fdp import CURVES, gaussian_epsilon
from diffence_jax.metrics.per_example import (
  auc_quantiles,
  example_aucs,
  model_folds,
  permuted_in_folds,
)
from diffence_jax.metrics.two_way import spread

_RUNS = flags.DEFINE_integer("runs", 500, "Simulations of each setting.")
_PART = flags.DEFINE_enum(
  "part", "all", ["all", "figures", "examples", "bounds"], "Which tables."
)
_OUTPUT = flags.DEFINE_string("output", "coverage.json", "The tables.")

LAWS = {"normal": scipy.stats.norm, "Student, 4 degrees": scipy.stats.t(4)}
LIMITS = (0.001, 0.01, 0.05)
# Members and non-members, and the shift.
ONE_TARGET = ((400, 0.0), (400, 0.5), (2000, 0.5), (2000, 1.5), (20_000, 1.0))
# For the AUC, few samples too: a shift of 2.326 is an AUC of 0.95 of the normal.
OF_AUC = ((20, 0.0), (20, 2.326), *ONE_TARGET)
NUM_SAMPLES = 400
MODELS = (8, 12, 16, 64)
# The leak, in standard deviations of a model's answer, and how much models' levels differ.
LEAKS = ((0.0, 0.3), (0.3, 0.3), (1.5, 0.3), (1.5, 1.0))
EXAMPLE_MODELS = (16, 64)
QUANTILES = (0.5, 0.9, 0.99)
DELTA = 1e-5
# The law, epsilon (of a Gaussian: its mu), and the number of canaries.
BOUNDS = (
  ("randomised response", 1.0, 300),
  ("randomised response", 1.0, 1000),
  ("Gaussian", 1.0, 300),
  ("Gaussian", 1.0, 1000),
  ("Gaussian", 0.0, 300),
)
# The leak, the number of known non-members, and the level.
NAMED = tuple(itertools.product((0.0, 2.0, 3.0), (150, 1000), (0.05, 0.1)))
# Audits of one setting that are run again with memberships drawn at random.
_CHANCE_RUNS = 50


def covered(estimates: list[metrics.Estimate], truth: float) -> float:
  """The share of intervals that hold the truth."""
  return float(np.mean([interval.low <= truth <= interval.high for interval in estimates]))


def draw_curves(law: str, num: int, shift: float, runs: int) -> list[metrics.Roc]:
  """The ROCs of so many runs."""
  draw, scores = np.random.default_rng(0), LAWS[law]
  sides = [[scores.rvs(size=num, random_state=draw) for _ in range(2)] for _ in range(runs)]
  return [metrics.roc(members + shift, others) for members, others in sides]


def one_auc(law: str, num: int, shift: float, runs: int) -> dict:
  """Coverage of an AUC's interval."""
  curves, scores = draw_curves(law, num, shift, runs), LAWS[law]
  truth = scores.expect(lambda score: scores.cdf(score + shift))
  intervals = [metrics.Estimate(curve.auc, *curve.auc_interval) for curve in curves]
  setting = {"law": law, "samples": num, "shift": shift, "truth": float(truth)}
  return setting | {"covered": covered(intervals, truth)}


def one_target(law: str, num: int, shift: float, runs: int) -> list[dict]:
  """Coverage of a TPR's interval at each limit, and of the proportion's own."""
  curves, scores, rows = draw_curves(law, num, shift, runs), LAWS[law], []
  for limit in LIMITS:
    truth = float(scores.sf(scores.isf(limit) - shift))
    rates = [curve.tpr_at_fpr(limit) for curve in curves]
    plain = [metrics.proportion(round(rate.value * num), num) for rate in rates]
    row = {"law": law, "samples": num, "shift": shift, "limit": limit, "truth": truth}
    row |= {"mean": float(np.mean([rate.value for rate in rates]))}
    rows.append(row | {"covered": covered(rates, truth), "proportion": covered(plain, truth)})
  return rows


def draw_record(draw, num_models, leak, level, heavy, of_examples=None):
  """Answers phi f64[S,N] of models in complementary pairs, and their membership bool[S,N].

  What is special about the examples is drawn by `of_examples`, if it is another generator.
  """
  special = of_examples or draw
  half = draw.random((num_models // 2, NUM_SAMPLES)) < 0.5
  membership = np.stack([half, ~half], axis=1).reshape(num_models, NUM_SAMPLES)
  shape, scale = membership.shape, np.exp(special.normal(0, 0.4, NUM_SAMPLES))
  noise = draw.standard_t(4, shape) / np.sqrt(2) if heavy else draw.standard_normal(shape)
  own_leak = leak * np.exp(special.normal(0, 0.7, NUM_SAMPLES))
  phi = special.normal(0, 2, NUM_SAMPLES) + scale * (noise + own_leak * membership)
  return phi + level * draw.standard_normal((num_models, 1)), membership


def in_turn(phi, membership, groups=None):
  """LiRA's scores f64[S,N] of every model against all but its group's; None for its pair's."""
  group = np.arange(len(phi)) // 2 if groups is None else groups
  return np.stack(
    [
      lira(phi[t], phi[others], membership[others], variance="global")
      for t, others in enumerate(group != group[:, None])
    ]
  )


def aucs_without_each_pair(phi, membership):
  """The pooled AUC f64[P] of LiRA run anew without each pair; None with enough models."""
  if len(phi) >= ENOUGH_MODELS:
    return None
  aucs, pairs = [], np.arange(len(phi)) // 2
  for pair in np.unique(pairs):
    left = pairs != pair
    scores, members = in_turn(phi[left], membership[left]), membership[left]
    aucs.append(metrics.roc(scores[members], scores[~members]).auc)
  return np.array(aucs)


def of_models_alone(scores, membership, models, auc: float) -> metrics.Estimate:
  """A pooled AUC's interval, were models all that varies."""
  by_pair = np.bincount(models, auc_shares(scores, membership, auc).sum(axis=1))
  pairs = np.arange(len(by_pair))
  return auc_estimate(auc, spread(by_pair[:, None], pairs), pairs)


def every_model(num_models: int, leak: float, level: float, heavy: bool, runs: int) -> dict:
  """Coverage of the pooled AUC, of the TPRs and of what a noise takes off the AUC."""
  draw = np.random.default_rng(1)
  models = np.arange(num_models) // 2
  limits = LIMITS[:2]
  names = ("AUC", "AUC, models alone", "difference")
  intervals = {name: [] for name in names} | {f"TPR at {limit:.1%}": [] for limit in limits}
  for _ in range(runs):
    phi, membership = draw_record(draw, num_models, leak, level, heavy)
    noisy = phi + draw.normal(0, 1.0, phi.shape)
    scores, defended = in_turn(phi, membership), in_turn(noisy, membership)
    anew, noisy_anew = (aucs_without_each_pair(own, membership) for own in (phi, noisy))
    curve = metrics.clustered_roc(
      scores, membership, models=models, limits=limits, jackknife=anew
    )
    intervals["AUC"].append(curve.auc)
    plain = of_models_alone(scores, membership, models, curve.auc.value)
    intervals["AUC, models alone"].append(plain)
    for rate in curve.rates:
      intervals[f"TPR at {rate.limit:.1%}"].append(metrics.Estimate(*rate[:3]))
    intervals["difference"].append(
      metrics.clustered_difference(
        defended,
        scores,
        membership,
        models=models,
        jackknife_a=noisy_anew,
        jackknife_b=anew,
      )
    )
  by_chance = dict(zip(names, (0.5, 0.5, 0.0), strict=True)) | {
    f"TPR at {limit:.1%}": limit for limit in limits
  }
  row = {"models": num_models, "leak": leak, "level": level, "heavy tails": heavy}
  for name, estimates in intervals.items():
    truth = by_chance[name] if not leak else np.mean([interval.value for interval in estimates])
    row[f"{name}, truth"] = float(truth)
    row[name] = covered(estimates, truth)
  return row


def single_examples(num_models: int, leak: float, level: float, runs: int) -> dict:
  """Coverage of quantiles over examples and of examples' own AUCs, and what chance gives."""
  draw, aucs, quantiles, chance, alone = np.random.default_rng(2), [], [], [], []
  pairs = np.arange(num_models) // 2
  for run in range(runs):
    phi, membership = draw_record(draw, num_models, leak, level, False)
    folds = model_folds(pairs, membership)
    scores = in_turn(phi, membership, folds)
    aucs.append(example_aucs(scores, membership, folds).auc)
    quantiles.append(auc_quantiles(scores, membership, folds, aucs[-1], QUANTILES))
    if run < _CHANCE_RUNS:
      drawn = permuted_in_folds(membership, folds, draw)
      of_drawn = example_aucs(in_turn(phi, drawn, folds), drawn, folds).auc
      chance.append(np.quantile(of_drawn, QUANTILES))
      in_one = np.zeros(num_models, int)
      alone.append(example_aucs(in_turn(phi, membership), membership, in_one).auc.mean())
  row = {"models": num_models, "leak": leak, "level": level, "mean": float(np.mean(aucs)),
         "mean, pairs left out": float(np.mean(alone))}  # fmt: skip
  for at, quantile in enumerate(QUANTILES):
    row[f"{quantile:.0%}"] = truth = float(np.quantile(np.concatenate(aucs), quantile))
    row[f"{quantile:.0%}, chance"] = float(np.mean(chance, axis=0)[at])
    row[f"{quantile:.0%}, covered"] = covered([of_run[at] for of_run in quantiles], truth)
  return row | {"own AUC, covered": _own_aucs(num_models, leak, level, max(runs // 2, 2))}


def _own_aucs(num_models, leak, level, runs) -> float:
  """Coverage of an example's own AUC, the mean over examples."""
  draw, found = np.random.default_rng(3), []
  for _ in range(runs):
    same = np.random.default_rng(4)
    phi, membership = draw_record(draw, num_models, leak, level, False, same)
    folds = model_folds(np.arange(num_models) // 2, membership)
    found.append(example_aucs(in_turn(phi, membership, folds), membership, folds))
  truth = np.mean([of_run.auc for of_run in found], axis=0)
  return float(np.mean([(a.low <= truth) & (truth <= a.high) for a in found]))


def bounds(law: str, size: float, num: int, runs: int) -> dict:
  """How often bounds on epsilon by f-DP are above it, and their median."""
  draw, found = np.random.default_rng(5), {curve: [] for curve in CURVES}
  truth = gaussian_epsilon(size, DELTA) if law == "Gaussian" else size
  for _ in range(runs):
    is_member = draw.random(num) < 0.5
    if law == "Gaussian":
      scores = draw.standard_normal(num) + size * is_member
    else:
      scores = np.where(draw.random(num) < scipy.special.expit(size), is_member, ~is_member)
    for curve, of_curve in found.items():
      sides = scores[is_member], scores[~is_member]
      of_curve.append(metrics.epsilon_lower_bound_fdp(*sides, curve=curve, delta=DELTA))
  row = {"law": law, "canaries": num, "epsilon": float(truth)}
  for curve, of_curve in found.items():
    row[f"{curve}, median"] = float(np.median(of_curve))
    row[f"{curve}, above"] = float(np.mean(np.array(of_curve) > truth))
  return row


def named(leak: float, num_known: int, level: float, runs: int) -> dict:
  """What share of those named is false, at a false discovery rate and with the sure bound."""
  draw, is_member, shares = np.random.default_rng(6), np.arange(300) < 150, []
  for _ in range(runs):
    scores = draw.standard_normal(300) + leak * is_member
    p_values = metrics.conformal_p_values(scores, draw.standard_normal(num_known))
    called = metrics.benjamini_hochberg(p_values, level)
    surely = np.argsort(p_values, kind="stable")[: most_named(p_values, level)]
    false_sure = (~is_member[surely]).sum() > level * len(surely)
    shares.append(
      (
        called.sum(),
        (called & ~is_member).sum() / max(called.sum(), 1),
        len(surely),
        false_sure,
      )
    )
  mean = np.mean(shares, axis=0).tolist()
  row = {"leak": leak, "known": num_known, "level": level}
  return row | dict(zip(("named", "FDR", "surely", "broken"), mean, strict=True))


def print_table(rows: list[dict]) -> None:
  """As Markdown."""
  print("\n| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
  for row in rows:
    cells = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
    print("| " + " | ".join(cells) + " |")


def main(_) -> None:
  """Simulates, prints and writes."""
  tables = {}
  if _PART.value in ("all", "figures"):
    tables |= figures(_RUNS.value)
  if _PART.value in ("all", "bounds"):
    tables["epsilon"] = [bounds(*setting, _RUNS.value) for setting in BOUNDS]
    tables["named"] = [named(*setting, _RUNS.value) for setting in NAMED]
  if _PART.value in ("all", "examples"):
    rows = tables["single examples"] = []
    settings = list(itertools.product(EXAMPLE_MODELS, LEAKS))
    for num_models, leak in tqdm(settings, disable=None):
      rows.append(single_examples(num_models, *leak, _RUNS.value))
  for rows in tables.values():
    print_table(rows)
  Path(_OUTPUT.value).write_text(json.dumps({"runs": _RUNS.value, **tables}, indent=2))


def figures(runs: int) -> dict[str, list[dict]]:
  """The tables about pooled figures."""
  tables = {"AUC of one target": [], "one target": [], "every model in turn": []}
  for law, setting in tqdm(list(itertools.product(LAWS, OF_AUC)), disable=None):
    tables["AUC of one target"].append(one_auc(law, *setting, runs))
  for law, (num, shift) in tqdm(list(itertools.product(LAWS, ONE_TARGET)), disable=None):
    tables["one target"] += one_target(law, num, shift, runs)
  settings = list(itertools.product(MODELS, LEAKS, (False, True)))
  for num_models, leak, heavy in tqdm(settings, disable=None):
    tables["every model in turn"].append(every_model(num_models, *leak, heavy, runs))
  return tables


if __name__ == "__main__":
  app.run(main)
