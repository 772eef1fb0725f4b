"""Trains a little, an ensemble too, and records queries on the devices there are.

Run by test_parallel.py.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

import diffence_jax as dj
from diffence_jax import models, parallel
from diffence_jax.attacks.shadow import (
  ensemble_logits,
  make_ensemble_step,
  membership_matrix,
  train_shadow_models,
)
from diffence_jax.queries import Bound, make_record_step, record_queries
from diffence_jax.training import train_classifier
from diffence_jax.training.classifier import undefended
from diffence_jax.training.loop import init_state


def check_no_collective(lowered):
  """Neither models nor images of one device need to hear of another's."""
  text = lowered.compile().as_text()
  names = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
  for collective in names:
    assert collective not in text, collective


folder, num_devices = Path(sys.argv[1]), int(sys.argv[2])
assert jax.device_count() == num_devices
mesh = parallel.batch_mesh()
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (37, 8, 8, 1)).astype(np.uint8)
labels = rng.integers(0, 3, 37).astype(np.int32)
ids = rng.permutation(1000)[:37]

classifier = models.make_classifier("small_resnet", num_classes=3, width=8)
train_classifier(
  classifier,
  images,
  labels,
  epochs=2,
  batch_size=16,
  learning_rate=1e-3,
  weight_decay=0.0,
  checkpoint_every=100,
  seed=0,
  mesh=mesh,
  directory=folder,
)
lines = (folder / "metrics.jsonl").read_text().splitlines()
np.save(folder / "losses.npy", [json.loads(line)["loss"] for line in lines])

denoiser = models.make_denoiser("ddpm_unet", out_channels=1, channels=8, multipliers=(1, 2))
key = jax.random.key(0)
bound = [Bound(m, models.init(m, key, (8, 8, 1))) for m in (classifier, denoiser)]
schedule = dj.linear_schedule()
purify = dict(num_candidates=3, step=100, num_ddim_steps=2, chunk_size=10)
read = images.__getitem__
record_queries(
  key, *bound, schedule, read, ids, batch_size=16, mesh=mesh, directory=folder, **purify
)

protected = dj.protect(
  jax.jit(dj.models.predictor(*bound[0])),
  dj.models.denoiser(*bound[1]),
  schedule,
  num_candidates=3,
  step=100,
  mesh=mesh,
)
np.save(folder / "protected.npy", protected(key, images[:32].astype(np.float32) / 255.0))

# Work by batch needs no talk between devices.
step = make_record_step(classifier, denoiser, mesh, **purify)
shared = parallel.replicate(mesh, (key, bound[0].variables, bound[1].variables, schedule))
batch = (images[:16].astype(np.float32) / 255.0, ids[:16].astype(np.int32))
check_no_collective(step.lower(shared, parallel.shard_batch(mesh, batch)))

# Shadow models: five of them, which neither one device nor eight divide evenly.
recipe = undefended(classifier, learning_rate=1e-3, weight_decay=0.0)
membership = membership_matrix(6, len(images), 0)
kept = {}
train_shadow_models(
  classifier,
  recipe,
  images,
  labels,
  membership,
  numbers=range(5),
  keep=kept.__setitem__,
  epochs=2,
  batch_size=8,
  seed=0,
  mesh=mesh,
  models_at_once=1 if num_devices == 8 else 2,
)
ensemble = jax.tree.map(lambda *leaves: np.stack(leaves), *(kept[s] for s in range(5)))
answer = models.predictor(ensemble_logits(classifier, 1), ensemble)
np.save(folder / "ensemble.npy", answer(None, images.astype(np.float32) / 255.0))

group = 2 * num_devices
states = [init_state(models.init(classifier, key, (8, 8, 1)), recipe.optimizer)] * group
state = parallel.shard_batch(mesh, jax.tree.map(lambda *leaves: np.stack(leaves), *states))
rows = parallel.shard_batch(mesh, np.zeros((group, 8), np.int32))
keys = parallel.shard_batch(mesh, jax.random.split(key, group))
examples = parallel.replicate(mesh, {"images": images, "labels": labels})
step = make_ensemble_step(recipe, mesh)
check_no_collective(step.lower(examples, state, rows, keys))
