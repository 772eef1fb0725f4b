"""Trains a little, an ensemble too, and records queries on the devices there are.

Run by test_parallel.py.
"""

import dataclasses
import json
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from models.small_unet import small_unet
from training.small_attacker import SmallAttacker

import diffence_jax as dj
from diffence_jax import models, parallel
from diffence_jax.audit.membership import ensemble_logits, membership_matrix
from diffence_jax.audit.record import make_record_step, record_queries
from diffence_jax.defense import POLICIES, RankPolicy, Record
from diffence_jax.predictor import Bound
from diffence_jax.training import (
  TrainSettings,
  advreg,
  train_classifier,
  train_denoiser,
  train_ensemble,
)
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.ensemble import make_ensemble_step
from diffence_jax.training.registry import make_recipe


class Dense(nn.Module):
  """What is not slow in a loop on a CPU."""

  @nn.compact
  def __call__(self, images, *, train=False):
    return nn.Dense(3)(nn.relu(nn.Dense(8)(images.reshape(len(images), -1))))


class PixelDenoiser(nn.Module):
  """Looks at each pixel alone."""

  @nn.compact
  def __call__(self, x, t, *, train=False):
    return nn.Dense(1)(nn.relu(nn.Dense(8)(x)))


def check_no_collective(lowered):
  """Neither models nor images of one of several devices need to hear of another's."""
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

# Small, as most of the time is compilation.
classifier = models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
examples = {"images": images, "labels": labels}
settings = TrainSettings(37, epochs=2, batch_size=16, learning_rate=1e-3, weight_decay=0.0)
train_classifier(
  make_recipe("undefended", classifier, settings),
  examples,
  checkpoint_every=100,
  seed=0,
  mesh=mesh,
  directory=folder,
)
lines = (folder / "metrics.jsonl").read_text().splitlines()
np.save(folder / "losses.npy", [json.loads(line)["loss"] for line in lines])

# Every kind of training-time defense: further groups of examples, teachers, padded batches, two
# kinds of steps, a loss of its own. Convolutions where batches or models are of a new kind.
# Fewer and smaller steps of the attack network: one is as another.
advreg.AttackNetwork = SmallAttacker
advreg._ATTACK_EPOCHS_AT_FIRST, advreg._ATTACK_BATCHES_A_ROUND = 1, 3
reference = {"images": images[::-1][:24], "labels": labels[::-1][:24]}
for name, module, options in (
  ("advreg", Dense(), {}),
  ("selena", classifier, {"num_teachers": 3, "num_left_out": 1}),
  ("dpsgd", classifier, {"noise_multiplier": 0.5}),
  ("relaxloss", Dense(), {"alpha": 1.5}),  # above the loss: posteriors are flattened too
  ("label_smoothing", Dense(), {}),
):
  defended = make_recipe(name, module, settings, **options)
  parts = folder / name
  parts.mkdir()
  variables = train_classifier(
    defended, examples, reference, checkpoint_every=100, seed=0, mesh=mesh, directory=parts
  )
  own = []
  train_ensemble(
    defended,
    examples,
    reference,
    np.ones((3, len(images)), bool),
    names=["a", "b", "c"],
    keep=lambda i, variables, own=own: own.append(variables),
    seed=0,
    mesh=mesh,
    models_at_once=1 if num_devices == 8 else 2,
  )
  answers = [
    models.predictor(defended.answering, each)(None, images.astype(np.float32) / 255.0)
    for each in (variables, *own)
  ]
  np.save(folder / f"{name}.npy", answers)

# Several steps a call; without a padded batch, and with.
answers = []
for name in ("relaxloss", "dpsgd"):
  recipe = make_recipe(name, Dense(), settings)
  parts = folder / f"several_{name}"
  parts.mkdir()
  variables = train_classifier(
    recipe, examples, checkpoint_every=2, seed=0, mesh=mesh, directory=parts, steps_per_call=2
  )
  predict = models.predictor(recipe.answering, variables)
  answers.append(predict(None, images.astype(np.float32) / 255.0))
np.save(folder / "several.npy", answers)

# The diffusion model: batches split, a moving average, a warm-up; its state whole and divided.
for name, shard_parameters in (("denoiser", False), ("divided", True)):
  parts = folder / name
  parts.mkdir()
  variables = train_denoiser(
    PixelDenoiser(),
    images,
    dj.linear_schedule(),
    DenoiserSettings(
      num_steps=4,
      batch_size=16,
      learning_rate=1e-2,
      warmup_steps=2,
      clip_norm=1.0,
      ema_decay=0.9,
    ),
    checkpoint_every=2,
    seed=0,
    mesh=mesh,
    directory=parts,
    shard_parameters=shard_parameters,
  )
  np.save(
    folder / f"{name}.npy", np.concatenate([v.ravel() for v in jax.tree.leaves(variables)])
  )
wide = {"kernel": np.zeros((24, 16)), "bias": np.zeros(16), "scale": np.zeros(())}
for whole, divided in zip(wide.values(), parallel.spread(mesh, wide).values(), strict=True):
  parts = num_devices if whole.ndim else 1
  assert divided.addressable_shards[0].data.nbytes * parts == divided.nbytes

denoiser = small_unet()
key = jax.random.key(0)
bound = [Bound(m, models.init(m, key, (8, 8, 1))) for m in (classifier, denoiser)]
schedule = dj.linear_schedule()
purify = dict(num_candidates=3, step=100, num_ddim_steps=2, chunk_size=10)
read = images.__getitem__
record_queries(
  key, *bound, schedule, read, ids, batch_size=16, mesh=mesh, directory=folder, **purify
)

# 37 images, which eight devices do not divide evenly; all candidates, and as many as needed.
# What is on one device already is spread over all.
bound = [Bound(m, jax.device_put(v, jax.devices()[0])) for m, v in bound]
for name, constant_time in (("protected", True), ("early", False)):
  protected = dj.protect(
    dj.models.predictor(*bound[0]),
    dj.models.denoiser(*bound[1]),
    schedule,
    num_candidates=3,
    step=100,
    interval=(0.05, 0.25),
    chunk_size=16,
    mesh=mesh,
    constant_time=constant_time,
  )
  given = jax.device_put((key, images.astype(np.float32) / 255.0), jax.devices()[0])
  np.save(folder / f"{name}.npy", protected(*given))

# Every policy, of networks that compile quickly; those that rank with early exit too.
quick = [Dense(), PixelDenoiser()]
quick = [Bound(m, models.init(m, key, (8, 8, 1))) for m in quick]
known = []
for _ in range(2):
  logits = rng.normal(0.0, 0.3, (20, 5, 3)).astype(np.float32)
  known.append(Record(logits[:, 0], logits[:, 1:], rng.integers(0, 3, 20)))
answers = {}
for name in POLICIES.known:
  policy = POLICIES.call(POLICIES.choose(name), *known)
  for constant_time in (True, False) if isinstance(policy, RankPolicy) else (True,):
    protected = dj.protect(
      models.predictor(*quick[0]),
      models.denoiser(*quick[1]),
      schedule,
      num_candidates=3,
      step=100,
      policy=policy,
      chunk_size=16,
      mesh=mesh,
      constant_time=constant_time,
    )
    answers[name if constant_time else f"{name}_early"] = protected(*given)
np.savez(folder / "policies.npz", **answers)

# Work by batch needs no talk between devices.
if num_devices > 1:
  step = make_record_step(classifier, denoiser, mesh, **purify)
  shared = parallel.replicate(mesh, (key, bound[0].variables, bound[1].variables, schedule))
  batch = (images[:16].astype(np.float32) / 255.0, ids[:16].astype(np.int32))
  check_no_collective(step.lower(shared, parallel.shard_batch(mesh, batch)))

# Shadow models: five of them, which neither one device nor eight divide evenly.
fewer = dataclasses.replace(settings, num_members=19, batch_size=8)
recipe = make_recipe("undefended", classifier, fewer)
membership = membership_matrix(6, len(images), 0)[:5]
kept = {}
train_ensemble(
  recipe,
  examples,
  None,
  membership,
  names=[f"shadow/{s}" for s in range(5)],
  keep=kept.__setitem__,
  seed=0,
  mesh=mesh,
  models_at_once=1 if num_devices == 8 else 2,
)
ensemble = jax.tree.map(lambda *leaves: np.stack(leaves), *(kept[s] for s in range(5)))
answer = models.predictor(ensemble_logits(classifier, 1), ensemble)
np.save(folder / "ensemble.npy", answer(None, images.astype(np.float32) / 255.0))

group = 2 * num_devices
whole = parallel.replicate(mesh, {"members": examples})
keys = parallel.shard_batch(mesh, jax.random.split(key, group))
steps = ((recipe, 1), (make_recipe("undefended", Dense(), settings), 3))
for own, num_steps in steps if num_devices > 1 else ():
  states = [own.init(key, (8, 8, 1))] * group
  state = parallel.shard_batch(mesh, jax.tree.map(lambda *leaves: np.stack(leaves), *states))
  rows = parallel.shard_batch(mesh, {"members": np.zeros((group, num_steps, 8), np.int32)})
  step = make_ensemble_step(own.kinds["train"].step, mesh)
  check_no_collective(step.lower(whole, {}, state, rows, keys))
