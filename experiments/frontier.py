"""The frontier between privacy and usefulness, from the records of a finished audit.

    diffence --config=configs/digits.py:audit --workdir=runs/audit
    python experiments/frontier.py --config=configs/digits.py:audit --workdir=runs/audit

Puts every policy, blends of several weights among them, before every shadow model of the audit
and attacks each model in turn with confidence, LiRA and RMIA, asked once and as often as the
audit recorded. Usefulness is on non-members that nothing was fitted to, the mean over models:
accuracy, negative log-likelihood (of probabilities of at least 1e-7), the same after a
temperature that known non-members chose, and the area under the risk-coverage curve (answering
only the surest). Writes a table and a plot; gray points are worse than another one in both.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import scipy.special
from absl import app, flags
from ml_collections import config_flags

from diffence_jax.attacks import ATTACKS
from diffence_jax.audit.predictors import Predictor, policy_title
from diffence_jax.audit.shadow import in_turn_tables
from diffence_jax.defense import POLICIES
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit
from diffence_jax.experiment.store import Store
from diffence_jax.report.summary import SMOKE

_CONFIG = config_flags.DEFINE_config_file("config", None, "The audit's.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The audit's.")
_OUTPUT = flags.DEFINE_string("output", "frontier", "Path of the files, without an ending.")

ATTACKS_IN_TURN = ("confidence", "lira_online", "rmia_online")
WEIGHTS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
PLAIN = (
  "undefended", "temperature", "rounded", "levels", "scenario_1", "scenario_2", "scenario_3",
  "average", "majority", "mean_kept", "constant",
)  # fmt: skip
TEMPERATURES = np.geomspace(0.2, 5.0, 33)
LIMIT = 0.01


def predictors() -> tuple[Predictor, ...]:
  """All that are compared, the undefended one first."""
  plain = [Predictor(policy_title(name), POLICIES.choose(name)) for name in PLAIN]
  blends = [
    Predictor(f"blend {weight:g}", POLICIES.choose("blend", {"weight": weight}))
    for weight in WEIGHTS
  ]
  return tuple(plain + blends)


def usefulness(logits: np.ndarray, labels: np.ndarray, versions: int) -> np.ndarray:
  """What is read off the first answer: whether it is right, how sure, and its NLLs f[N,2+T]."""
  del versions
  first, rows = np.asarray(logits[:, 0], np.float64), np.arange(len(labels))
  largest = first.argmax(axis=-1)
  log_p = scipy.special.log_softmax(first, axis=-1)
  nll = [
    -scipy.special.log_softmax(first / temperature, axis=-1)[rows, labels]
    for temperature in TEMPERATURES
  ]
  columns = [largest == labels, np.exp(log_p[rows, largest]), *np.minimum(nll, -np.log(1e-7))]
  return np.stack(columns, axis=1)


def measure(found: np.ndarray, known: np.ndarray, judged: np.ndarray) -> list[float]:
  """Accuracy, NLL, calibrated NLL and risk-coverage area of one model; see `usefulness`."""
  right, sure, nll = found[judged, 0], found[judged, 1], found[:, 2:]
  best = nll[known].mean(axis=0).argmin()
  risks = 1.0 - np.cumsum(right[np.argsort(-sure, kind="stable")]) / np.arange(
    1, len(right) + 1
  )
  as_it_is = nll[judged][:, np.argmin(np.abs(TEMPERATURES - 1.0))].mean()
  return [right.mean(), as_it_is, nll[judged][:, best].mean(), risks.mean()]


def compare(stage: ShadowAudit, store: Store) -> list[dict]:
  """A row a predictor."""
  pool, names = stage.pool, [predictor.name for predictor in stage.predictors]
  ensemble = stage.ensemble(store)
  choices = [ATTACKS.choose(name) for name in ATTACKS_IN_TURN]
  reported = pool.reported(stage.protocol)
  tables, _ = in_turn_tables(
    ensemble, choices, choices[1], reported=reported, has_epsilon=False
  )
  rows = []
  for name in names:
    own = [row for row in tables["samples"] if row.predictor == name]
    found = ensemble.at(name, 0).statistic(usefulness)
    measured = [
      measure(of_model, pool.is_known & ~members, reported & ~pool.is_canary & ~members)
      for of_model, members in zip(found, ensemble.membership, strict=True)
    ]
    columns = ("accuracy", "nll", "calibrated_nll", "risk_coverage")
    row = {
      "policy": name,
      **dict(zip(columns, np.mean(measured, axis=0).tolist(), strict=True)),
    }
    for label, of_rows in (("once", [r for r in own if r.queries == 1]), ("often", own)):
      best = max(of_rows, key=lambda r: r.auc.value)
      rates = {r: next(x for x in r.tpr_at_fpr if x.limit == LIMIT) for r in of_rows}
      rate = max(rates.values(), key=lambda x: x.value)
      row[label] = {
        "attack": best.attack, "queries": best.queries, "auc": list(best.auc),
        "tpr_at_1_percent_fpr": list(rate[:3]),
      }  # fmt: skip
    rows.append(row)
  return rows


def is_dominated(row: dict, rows: list[dict]) -> bool:
  """Whether another is at least as useful and as private, and not the same in both."""
  mine = row["calibrated_nll"], row["often"]["auc"][0]
  others = [(other["calibrated_nll"], other["often"]["auc"][0]) for other in rows]
  return any(o[0] <= mine[0] and o[1] <= mine[1] and o != mine for o in others)


def draw(rows: list[dict], path: Path) -> None:
  """The plot: usefulness across, what is left to an attacker upwards."""
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
  for row in rows:
    auc, low, high = row["often"]["auc"]
    published = row["policy"].startswith("scenario")
    color = "0.7" if is_dominated(row, rows) else "tab:blue"
    axes.errorbar(
      row["calibrated_nll"], auc, [[auc - low], [high - auc]], fmt="s" if published else "o",
      color="tab:orange" if published else color, markersize=5,
    )  # fmt: skip
    axes.annotate(
      row["policy"], (row["calibrated_nll"], auc), xytext=(4, 4), fontsize=8,
      textcoords="offset points",
    )  # fmt: skip
  axes.set_xlabel("negative log-likelihood on non-members, calibrated (lower: more useful)")
  axes.set_ylabel("highest attack AUC, any number of queries")
  axes.grid(alpha=0.2)
  figure.savefig(path)


def main(_) -> None:
  """Compares, prints and writes."""
  experiment, store = plan(_CONFIG.value), Store(_WORKDIR.value)
  if experiment.shadow_audit is None:
    raise app.UsageError(
      "The config trains no shadow models; expected shadow.num_models above 0."
    )
  rows = compare(dataclasses.replace(experiment.shadow_audit, predictors=predictors()), store)
  output = Path(_OUTPUT.value)
  output.with_suffix(".json").write_text(json.dumps(rows, indent=2))
  draw(rows, output.with_suffix(".png"))
  if experiment.settings.variant.endswith("smoke"):
    print(f"**{SMOKE}**\n")
  print(
    "| policy | accuracy | NLL | calibrated | risk-coverage | AUC, one query | AUC, any number "
    "| TPR at 1% FPR |\n|---|---|---|---|---|---|---|---|"
  )
  for row in rows:
    cells = [
      "{:.3f} [{:.3f}, {:.3f}] {}".format(*row[k]["auc"], row[k]["attack"])
      for k in ("once", "often")
    ]
    tpr = "{:.1%} [{:.1%}, {:.1%}]".format(*row["often"]["tpr_at_1_percent_fpr"])
    figures = [f"{row[k]:.3f}" for k in ("accuracy", "nll", "calibrated_nll", "risk_coverage")]
    print(f"| {row['policy']} | {' | '.join(figures)} | {' | '.join(cells)} | {tpr} |")


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
