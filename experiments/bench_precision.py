"""What bfloat16 changes: in phi, in what is selected, in labels. On a finished run's models.

    diffence --config=configs/digits.py --workdir=runs/digits
    python experiments/bench_precision.py --config=configs/digits.py --workdir=runs/digits

The candidates of the first images are drawn with the same noise by the run's networks in
float32, and by the diffusion network computing in another dtype; the classifier stays in
float32, unless `--classifier_dtype` says otherwise. Prints what differs, and writes it
to `precision.json` in the workdir. It measures no speed, which is `bench_queries.py --dtype`.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import diffence_jax as dj
from diffence_jax import models, rng
from diffence_jax.defense import RankPolicy
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.store import Store

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's.")
_IMAGES = flags.DEFINE_integer("images", 200, "The first so many images.")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "What the diffusion network computes in.")
_CLASSIFIER_DTYPE = flags.DEFINE_string(
  "classifier_dtype", "float32", "What the classifier computes in."
)


def compare(experiment, store) -> dict[str, Any]:
  """Draws in float32 and in the other dtypes; what differs."""
  settings, purification = experiment.settings, experiment.purification
  schedule, sampler = purification.sampler_schedule(), purification.sampler
  num_candidates = settings.purify.num_candidates
  bound = experiment.classifier.load(store), experiment.diffusion.load(store)
  dtypes = {"float32": ("float32", "float32"), "other": (_CLASSIFIER_DTYPE.value, _DTYPE.value)}
  images = experiment.dataset.images[: _IMAGES.value].astype(np.float32) / 255.0
  key = rng.stream(settings.seed, "precision")
  raw, candidates = {}, {}
  for name, names in dtypes.items():
    classifier, denoiser = (
      b.module.clone(dtype=jnp.dtype(dtype)) for b, dtype in zip(bound, names, strict=True)
    )
    predict = models.predictor(classifier, bound[0].variables)
    denoise = models.denoiser(denoiser, bound[1].variables)
    draw = jax.jit(
      lambda p=predict, d=denoise: dj.candidate_logits(
        key, p, d, schedule, images, num_candidates=num_candidates, **sampler
      )
    )
    raw[name], candidates[name] = np.asarray(predict(None, images)), np.asarray(draw())
  phi = {name: np.asarray(dj.scaled_logit(logits)) for name, logits in candidates.items()}
  apart = np.abs(phi["other"] - phi["float32"])
  labels = {name: logits.argmax(-1) for name, logits in raw.items()}
  kept = {name: c.argmax(-1) == labels[name][:, None] for name, c in candidates.items()}
  selected = {}
  for defended in experiment.audit.load_predictors(store):
    if not isinstance(defended.policy, RankPolicy):
      continue
    full, other = (defended.policy.select(candidates[name], raw[name]) for name in dtypes)
    selected[defended.name] = {
      "another_candidate": int(np.sum(np.asarray(full.index != other.index))),
      "labels_not_the_raw_ones": int(
        np.sum(np.argmax(other.logits, axis=-1) != labels["other"])
      ),
    }
  return {
    "dtypes": {"classifier": _CLASSIFIER_DTYPE.value, "diffusion": _DTYPE.value},
    "images": len(images),
    "candidates": num_candidates,
    "largest_difference_of_phi": float(apart.max()),
    "mean_difference_of_phi": float(apart.mean()),
    "spread_of_phi": float(phi["float32"].std()),
    "candidates_of_another_label": int(
      np.sum(candidates["other"].argmax(-1) != candidates["float32"].argmax(-1))
    ),
    "candidates_that_keep_the_label": {
      name: float(is_kept.mean()) for name, is_kept in kept.items()
    },
    "raw_labels_changed": int(np.sum(labels["other"] != labels["float32"])),
    "selected": selected,
  }


def main(_) -> None:
  """Compares, writes and prints."""
  experiment, store = plan(_CONFIG.value), Store(_WORKDIR.value)
  results = compare(experiment, store)
  measuring.write_figures(str(Path(_WORKDIR.value) / "precision.json"), results)
  print(json.dumps(results, indent=2))


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
