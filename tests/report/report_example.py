"""Made-up results of the shape that an experiment reports."""

import numpy as np

NAMES = ("undefended", "scenario 1", "scenario 2", "scenario 3", "average")
AUCS = (0.74, 0.58, 0.62, 0.61, 0.63)
GAP = 0.52
_ATTACKS = (
  *((name, threshold) for name in ("loss", "entropy") for threshold in ("global", "per_class")),
  ("correctness", "global"),
)
STAGES = [
  {"name": "classifier", "fingerprint": "0123456789abcdef", "seconds": 31.4, "cached": False},
  {"name": "audit", "fingerprint": "fedcba9876543210", "seconds": None, "cached": True},
]


def estimate(value, half=0.04):
  """A figure with an interval around it."""
  return {"value": value, "low": value - half, "high": value + half}


def make_results(aucs=AUCS, label_changes=(0, 0, 0, 0, 9), enough=(False, True), **overrides):
  """Results of five predictors.

  Args:
    aucs: the highest attack AUC of every predictor.
    label_changes: the labels that each predictor changes.
    enough: whether the sample is large enough for the rates at 0.1% and at 1%.
    **overrides: replaces top-level entries.

  Returns:
    A dict as `write_report` takes it.
  """
  rows = [
    _row(name, auc, aucs[0], changes, enough)
    for name, auc, changes in zip(NAMES, aucs, label_changes, strict=True)
  ]
  results = {
    "experiment": "digits",
    "variant": "",
    "seed": 0,
    "protocol": "disjoint",
    "data": {
      "source": "digits", "image_shape": [8, 8, 1], "num_classes": 10, "reference": 597,
      "known_members": 200, "target_members": 200,
      "known_nonmembers": 400, "target_nonmembers": 400,
    },
    "purify": {"num_candidates": 30, "step": 160, "num_ddim_steps": 1},
    "classifier": {
      "model": "small_resnet", "num_parameters": 77_850,
      "train_accuracy": 1.0, "test_accuracy": 0.965,
    },
    "diffusion": {
      "model": "ddpm_unet", "num_parameters": 701_441, "trained_on": "members", "loss": 0.0712,
    },
    "predictors": rows,
    "settings": {"name": "digits", "purify": {"step": 160, "num_candidates": 30}},
    "versions": {"python": "3.11.2", "jax": "0.10.2"},
    "device": "cpu x1",
  }  # fmt: skip
  return results | overrides


def make_arrays(names=NAMES, num_images=16):
  """Arrays that the plots of `make_results` show."""
  generator = np.random.default_rng(0)
  arrays = {}
  for i, name in enumerate(names):
    members = generator.normal(6.0 - i / 2, 2.0, 200)
    nonmembers = generator.normal(4.0, 2.5, 400)
    thresholds = np.sort(np.concatenate([members, nonmembers]))[::-1]
    arrays[f"{name}/phi_members"], arrays[f"{name}/phi_nonmembers"] = members, nonmembers
    for rate, phi in (("fpr", nonmembers), ("tpr", members)):
      shares = np.searchsorted(np.sort(-phi), -thresholds, side="right") / phi.size
      arrays[f"{name}/{rate}"] = np.concatenate([[0.0], shares])
  arrays["images/raw"] = generator.integers(0, 256, (num_images, 8, 8, 1), np.uint8)
  arrays["images/reconstructed"] = generator.integers(
    0, 256, (num_images, 4, 8, 8, 1), np.uint8
  )
  arrays["images/samples"] = generator.random((num_images, 8, 8, 1), np.float32)
  return arrays


def _row(name, auc, undefended, changes, enough):
  best = {"attack": "loss", "threshold": "per_class"}
  relative = None if name == "undefended" else auc / undefended - 1.0
  accuracy = estimate(0.5 + 0.8 * (auc - 0.5))
  attacks = [_attack(*attack, auc, enough) for attack in _ATTACKS]
  return {
    "name": name,
    "interval": [1.25, 4.5] if name in ("scenario 1", "scenario 2") else None,
    "test_accuracy": estimate(0.965, 0.018),
    "member_accuracy": {"value": 1.0, "low": 0.982, "high": 1.0},
    "label_changes": changes,
    "num_labels": 1200,
    "returned_raw": 0.0025 if name.startswith("scenario") else None,
    "labels_kept": 0.943 if name.startswith("scenario") else None,
    "ece": 0.0213,
    "nll": 0.1234,
    "js_distance": 0.2345,
    "gap": estimate(GAP, 0.01),
    "attacks": attacks,
    "highest_auc": {
      **best, **estimate(auc), "excess": auc - GAP, "relative_change": relative,
    },
    "highest_accuracy": {**best, **accuracy, "relative_change": relative},
    "highest_tpr_at_fpr": [{**best, **rate} for rate in attacks[1]["tpr_at_fpr"]],
    "highest_tnr_at_fnr": [{**best, **rate} for rate in attacks[1]["tnr_at_fnr"]],
  }  # fmt: skip


def _attack(name, threshold, auc, enough):
  best = name == "loss" and threshold == "per_class"
  value = GAP if name == "correctness" else auc if best else auc - 0.01
  rates = [
    {
      "limit": limit, "realised": count / 400, "count": count, "num": 400, "enough": large,
      **estimate(20 * limit, 9 * limit),
    }
    for limit, count, large in zip((0.001, 0.01), (0, 4), enough, strict=True)
  ]  # fmt: skip
  return {
    "name": name,
    "threshold": threshold,
    "auc": estimate(value),
    "accuracy": estimate(0.5 + 0.8 * (value - 0.5)),
    "known_threshold_accuracy": estimate(0.5 + 0.7 * (value - 0.5)),
    "tpr_at_fpr": rates,
    "tnr_at_fnr": rates,
  }
