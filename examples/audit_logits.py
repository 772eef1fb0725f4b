"""From two arrays to a report, and to a ROC of one attack with logarithmic axes.

    python examples/audit_logits.py --output=runs/logits

The two arrays are made up here: what a classifier answered about 2,000 samples, and their
labels. Put your own in their place.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

import diffence_jax as dj

matplotlib.use("Agg")  # draws into files
import matplotlib.pyplot as plt


def make_up(num: int = 2000, num_classes: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
  """Answers of a classifier that is surer of some of its members."""
  draw = np.random.default_rng(seed)
  labels, is_member = draw.integers(0, num_classes, num), draw.random(num) < 0.5
  logits = draw.normal(size=(num, num_classes))
  memorised = is_member & (draw.random(num) < 0.2)
  logits[np.arange(num), labels] += 2 + 6 * memorised
  return {"logits": logits, "labels": labels, "is_member": is_member}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=Path, default=Path("runs/logits"))
  output = parser.parse_args().output
  record = make_up()
  results = dj.audit_record(record, output)
  strongest = results.undefended.highest_auc
  print(f"The strongest attack, {strongest.title}, has an AUC of {strongest.value:.3f}.")

  # Any score will do, higher for likelier members: here phi, the log-odds of the true label.
  phi = dj.scaled_logit(record["logits"], record["labels"])
  curve = dj.metrics.roc(phi[record["is_member"]], phi[~record["is_member"]])
  figure, axes = plt.subplots(figsize=(4.2, 4.2), layout="constrained")
  axes.loglog(curve.fpr, curve.tpr, label=f"phi, AUC {curve.auc:.3f}")
  axes.loglog([1e-3, 1], [1e-3, 1], "--", color="gray", label="guessing")
  axes.set(xlim=(1e-3, 1), ylim=(1e-3, 1), xlabel="FPR", ylabel="TPR")
  axes.legend()
  figure.savefig(output / "roc.png", dpi=150)
  print(f"{output / 'report.html'} and {output / 'roc.png'}")


if __name__ == "__main__":
  main()
