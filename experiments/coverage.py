"""How often the 95% intervals hold the truth, in simulated records.

    python experiments/coverage.py --output=coverage.json

First, one target: members' scores are a law shifted by d, non-members' the law itself, so that
the AUC and the TPR at a FPR are known. Then every model in turn: phi of S models in
complementary pairs, whose levels differ, about N samples of different difficulty, scale and
leak; LiRA online with the global variance scores each model against all pairs but its own, once
undefended and once behind a noise. Where there is a leak the truth is the mean over all runs,
which leaving a pair out shares with fresh targets.

Beside our intervals stand those that many print: of the proportion at the threshold that was
found, and of models alone. Prints tables, and writes them as JSON.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import scipy.stats
from absl import app, flags
from tqdm import tqdm

from diffence_jax import metrics
from diffence_jax.attacks.lira import lira
from diffence_jax.metrics.clustered import auc_estimate, auc_shares
from diffence_jax.metrics.two_way import spread

_RUNS = flags.DEFINE_integer("runs", 500, "Simulations of each setting.")
_OUTPUT = flags.DEFINE_string("output", "coverage.json", "The tables.")

LAWS = {"normal": scipy.stats.norm, "Student, 4 degrees": scipy.stats.t(4)}
LIMITS = (0.001, 0.01, 0.05)
# Members and non-members, and the shift.
ONE_TARGET = ((400, 0.0), (400, 0.5), (2000, 0.5), (2000, 1.5), (20_000, 1.0))
# For the AUC, few samples too: a shift of 2.326 is an AUC of 0.95 of the normal.
OF_AUC = ((20, 0.0), (20, 2.326), *ONE_TARGET)
NUM_SAMPLES = 400
MODELS = (8, 16, 64)
# The leak, in standard deviations of a model's answer, and how much models' levels differ.
LEAKS = ((0.0, 0.3), (0.3, 0.3), (1.5, 0.3), (1.5, 1.0))


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


def draw_record(draw, num_models, leak, level, heavy):
  """Answers phi f64[S,N] of models in complementary pairs, and their membership bool[S,N]."""
  half = draw.random((num_models // 2, NUM_SAMPLES)) < 0.5
  membership = np.stack([half, ~half], axis=1).reshape(num_models, NUM_SAMPLES)
  shape, scale = membership.shape, np.exp(draw.normal(0, 0.4, NUM_SAMPLES))
  noise = draw.standard_t(4, shape) / np.sqrt(2) if heavy else draw.standard_normal(shape)
  own_leak = leak * np.exp(draw.normal(0, 0.7, NUM_SAMPLES))
  phi = draw.normal(0, 2, NUM_SAMPLES) + scale * (noise + own_leak * membership)
  return phi + level * draw.standard_normal((num_models, 1)), membership


def in_turn(phi, membership):
  """LiRA's scores f64[S,N] of every model against all pairs but its own."""
  pair = np.arange(len(phi)) // 2
  return np.stack(
    [
      lira(phi[t], phi[others], membership[others], variance="global")
      for t, others in enumerate(pair != pair[:, None])
    ]
  )


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
    curve = metrics.clustered_roc(scores, membership, models=models, limits=limits)
    intervals["AUC"].append(curve.auc)
    plain = of_models_alone(scores, membership, models, curve.auc.value)
    intervals["AUC, models alone"].append(plain)
    for rate in curve.rates:
      intervals[f"TPR at {rate.limit:.1%}"].append(metrics.Estimate(*rate[:3]))
    intervals["difference"].append(
      metrics.clustered_difference(defended, scores, membership, models=models)
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


def print_table(rows: list[dict]) -> None:
  """As Markdown."""
  print("\n| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
  for row in rows:
    cells = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
    print("| " + " | ".join(cells) + " |")


def main(_) -> None:
  """Simulates, prints and writes."""
  runs = _RUNS.value
  tables = {"AUC of one target": [], "one target": [], "every model in turn": []}
  for law, setting in tqdm(list(itertools.product(LAWS, OF_AUC)), disable=None):
    tables["AUC of one target"].append(one_auc(law, *setting, runs))
  for law, (num, shift) in tqdm(list(itertools.product(LAWS, ONE_TARGET)), disable=None):
    tables["one target"] += one_target(law, num, shift, runs)
  settings = list(itertools.product(MODELS, LEAKS, (False, True)))
  for num_models, leak, heavy in tqdm(settings, disable=None):
    tables["every model in turn"].append(every_model(num_models, *leak, heavy, runs))
  for rows in tables.values():
    print_table(rows)
  Path(_OUTPUT.value).write_text(json.dumps({"runs": runs, **tables}, indent=2))


if __name__ == "__main__":
  app.run(main)
