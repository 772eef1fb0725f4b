"""Made-up results of the shape that an experiment reports."""

import numpy as np

NAMES = ("undefended", "scenario 1", "scenario 2", "scenario 3", "average")
AUCS = (0.74, 0.58, 0.62, 0.61, 0.63)
GAP = 0.52
# Online LiRA on the target at one query, and what four times as many queries add to it.
SHADOW_AUCS = (0.80, 0.60, 0.64, 0.63, 0.65)
STEP = 0.05
# What it has more over all models in turn.
MORE = 0.01
_ATTACKS = (
  *((name, threshold) for name in ("loss", "entropy") for threshold in ("global", "per_class")),
  ("correctness", "global"),
)
_NEAR = "near duplicates"
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
    "purify": {
      "num_candidates": 30, "step": 160, "num_ddim_steps": 1, "respacing": "", "dtype": "",
    },
    "defense": {"training": "undefended", "output": "none", "options": {}, "guarantee": None},
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


def make_shadow(
  aucs=SHADOW_AUCS, queries=(1, 4, 16), step=STEP, enough=(True, True), **overrides
):
  """What shadow models show about five predictors, four of them defended and asked again.

  Args:
    aucs: of online LiRA on the target at one query, of every predictor; the other attacks, and
      other ways of asking, have less; all have more by `MORE` over all models in turn.
    queries: the numbers of queries, each adding `step` to what the one before it reached.
    step: what they add.
    enough: whether the models in turn have enough samples for the rates at 0.1% and at 1%.
    **overrides: replaces top-level entries.

  Returns:
    A dict as `make_results` takes it for `shadow`.
  """
  less = {
    "confidence": 0.05, "lira_online": 0.0, "lira_offline": 0.03,
    "rmia_online": 0.02, "rmia_offline": 0.04,
  }  # fmt: skip
  ways = {("same", "defended"): 0.0, ("same", "raw"): 0.01, (_NEAR, "defended"): 0.02}
  adaptive, in_turn = [], []
  for name, auc in zip(NAMES, aucs, strict=True):
    own_ways = ways if name.startswith("scenario") else {("same", "defended"): 0.0}
    for at, k in enumerate(queries if name != "undefended" else (1,)):
      for attack, worse in less.items():
        value = auc + at * step - worse
        for (inputs, models), lost in own_ways.items():
          adaptive.append({
            "predictor": name, "attack": attack, "queries": k, "inputs": inputs,
            "shadow_models": models, "auc": estimate(value - lost),
            "tpr_at_fpr": _rates((False, True), 200),
          })  # fmt: skip
        if k > 1 and attack.endswith("offline"):
          continue
        row = {
          "predictor": name, "attack": attack, "queries": k, "num_models": 64,
          "auc": estimate(value + MORE, 0.004), "tpr_at_fpr": _rates(enough, 9_600),
        }  # fmt: skip
        if name != "undefended":
          row["auc_change"] = estimate(value - (aucs[0] - worse), 0.002)
        in_turn.append(row)
  quantiles = {"0.5": 0.6, "0.9": 0.8, "0.99": 0.95, "1.0": 1.0}
  chance = {"0.5": 0.5, "0.9": 0.59, "0.99": 0.66, "1.0": 0.72}
  shadow = {
    "num_models": 64, "num_examples": 620, "num_canaries": 20,
    "train_size": 310, "target_train_size": 310,
    "adaptive": adaptive, "samples": in_turn,
    "canaries": [row for row in in_turn if row["queries"] == 1],
    "vulnerability": [
      {
        "predictor": name, "num_examples": 600,
        "auc_quantiles": quantiles, "auc_quantiles_by_chance": chance,
      }
      for name in NAMES
    ],
    "epsilon": [
      {
        "predictor": name, "num_models": 4, "num_samples": 620,
        "first": 0.25, "lowest": 0.125, "highest": 1.5,
      }
      for name in NAMES
    ],
    "reused": {name: {"target": 0.0, "shadow": 0.0} for name in NAMES},
  }  # fmt: skip
  return shadow | overrides


def make_arrays(names=NAMES, num_images=16, shadow=False):
  """Arrays that the plots of `make_results` show, with or without those of `make_shadow`."""
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
    if shadow:
      fpr = np.geomspace(1e-5, 1.0, 101)
      tpr = fpr ** (0.6 + i / 20)
      arrays[f"{name}/loo_fpr"], arrays[f"{name}/loo_tpr"] = fpr, tpr
      arrays[f"{name}/loo_low"], arrays[f"{name}/loo_high"] = 0.8 * tpr, np.sqrt(tpr)
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
  rates = _rates(enough, 400)
  return {
    "name": name,
    "threshold": threshold,
    "auc": estimate(value),
    "accuracy": estimate(0.5 + 0.8 * (value - 0.5)),
    "known_threshold_accuracy": estimate(0.5 + 0.7 * (value - 0.5)),
    "tpr_at_fpr": rates,
    "tnr_at_fnr": rates,
  }


def _rates(enough, num):
  return [
    {
      "limit": limit, "realised": count / num, "count": count, "num": num, "enough": large,
      **estimate(20 * limit, 9 * limit),
    }
    for limit, count, large in zip((0.001, 0.01), (0, num // 100), enough, strict=True)
  ]  # fmt: skip
