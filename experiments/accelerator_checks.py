"""What `accelerator.py` checks: that networks and answers are right on this device."""

import functools
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_size import PRECISIONS, ROOT, Clock, Size
from random_networks import Networks, bind
from selections import differences

import diffence_jax as dj
from diffence_jax import models, parallel
from diffence_jax.data import digits
from diffence_jax.defense import make_early_selection
from diffence_jax.defense.interval import interval_policy
from diffence_jax.training import baselines, train_denoiser
from diffence_jax.training.classifier import train_classifier
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.recipe import TrainSettings

_STEP = 160
# What rounding may change in a logit or in phi, which spread by some units.
_ROUNDING = {"float32": 1e-3, "bfloat16": 0.1}
# Of so many classes and of such a share of kept labels, a defense that keeps none is noticed.
_LEAST_CLASSES, _SHARE = 5, (0.1, 0.98)
_NEVER = 10**9


def fixtures(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """How far networks are from the published code's outputs; AssertionError where too far."""
  if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))
  from fixtures.load import load_fixture, pseudo_state_dict

  nhwc = lambda x: jnp.asarray(x.transpose(0, 2, 3, 1))
  for kind, dtype in itertools.product(size.fixtures, size.checked):
    if not clock.allows(f"{kind} in {dtype}", 20):
      continue
    manifest, arrays = load_fixture(kind)
    fields = {} if kind == "ddpm_unet" else {"mean": 0.0, "std": 1.0}
    weights = pseudo_state_dict(manifest)
    module, variables = dj.interop.from_torch(kind, weights, dtype=dtype, **fields)
    with jax.default_matmul_precision("highest"):
      if kind == "ddpm_unet":
        network, expected = models.denoiser(module, variables), nhwc(arrays["eps"])
        out = jax.jit(network)(nhwc(arrays["x"]), jnp.asarray(arrays["t"], jnp.int32))
      else:
        expected = arrays["logits"]
        out = models.predictor(module, variables)(None, nhwc(arrays["x"]))
    apart = float(np.abs(np.asarray(out, np.float32) - np.asarray(expected)).max())
    spread = float(np.std(expected))
    yield {"network": kind, "dtype": dtype, "apart": apart, "spread": spread}
    allowed = 1e-4 if dtype == "float32" else 0.1 * spread
    assert apart <= allowed, f"{kind} in {dtype} is {apart:.2g} apart; expected {allowed:.2g}"


class Trained(NamedTuple):
  """Networks that have learnt digits, and others that they are asked about.

  Attributes:
    networks: without weights.
    variables: of the classifier and of the diffusion model.
    images: f32[N,8,8,1] in [0, 1], which neither was trained on.
    labels: i[N].
  """

  networks: Networks
  variables: tuple[Any, Any]
  images: np.ndarray
  labels: np.ndarray


def train_digits(size: Size) -> Trained:
  """Trains the networks of `configs/digits.py`, or smaller ones, for a few hundred steps."""
  data, shape, schedule = digits.load(), (8, 8, 1), dj.linear_schedule()
  order = np.random.default_rng(0).permutation(len(data.images))
  members, others = data.take(order[:400]), data.take(order[400 : 400 + size.asked])
  fields = {"channels": 32, "multipliers": (1, 2), "attention_levels": (1,)}
  if size.small:
    fields = {"channels": 16, "multipliers": (1,), "attention_levels": ()}
  stages = (1,) if size.small else (1, 1, 1)
  classifier = models.make_classifier("small_resnet", num_classes=10, width=8, stages=stages)
  denoiser = models.make_denoiser("ddpm_unet", out_channels=1, num_res_blocks=1, **fields)
  steps, batch = size.trained, 32
  how = {"checkpoint_every": _NEVER, "seed": 0, "mesh": parallel.batch_mesh()}
  settings = TrainSettings(
    400, epochs=batch * steps[0] // 400, batch_size=batch, learning_rate=3e-3
  )
  with tempfile.TemporaryDirectory() as folder:
    variables = (
      train_classifier(
        baselines.undefended(classifier, settings),
        {"images": members.images, "labels": members.labels},
        directory=Path(folder) / "classifier",
        **how,
      ),
      train_denoiser(
        denoiser,
        members.images,
        schedule,
        DenoiserSettings(num_steps=steps[1], batch_size=batch),
        directory=Path(folder) / "diffusion",
        **how,
      ),
    )
  images = others.images.astype(np.float32) / 255.0
  return Trained(
    Networks(classifier, denoiser, schedule, shape), variables, images, others.labels
  )


def answers(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Labels kept, and early exit against drawing all; AssertionError where they differ."""
  if not clock.allows("answers", 60):
    return
  trained = train_digits(size)
  for name in size.checked:
    if clock.allows(f"answers in {name}", 40):
      yield from answers_of(trained, name, size.candidates)


def answers_of(trained: Trained, name: str, num_candidates: int) -> Iterator[dict[str, Any]]:
  """The answers of trained networks in a precision: without an interval, and with one."""
  precision, images = PRECISIONS[name], trained.images
  settings = {"num_candidates": num_candidates, "step": _STEP}
  key, ids = jax.random.key(1), np.arange(len(images), dtype=np.int32)
  with jax.default_matmul_precision(precision.products):
    bound = *bind(trained.networks, trained.variables, precision.dtype), trained.networks[2]
    raw = bound[0](None, images)
    draw = jax.jit(functools.partial(dj.candidate_logits, **settings))
    candidates = np.asarray(draw(key, *bound, images))
    phi = np.asarray(dj.scaled_logit(candidates))
    # Where a third of the candidates are inside, most images draw several.
    between = tuple(float(end) for end in np.quantile(phi, (0.4, 0.7)))
    for interval in (None, between):
      whole = dj.select(candidates, raw, interval)
      policy = interval_policy(interval)
      early = make_early_selection(*bound, policy=policy, **settings)(key, images, ids, raw)
      told = compare(name, interval, raw, candidates, whole, early)
      yield told
      assert told["classes"] >= _LEAST_CLASSES, f"{told['classes']} classes are answered"
      assert _SHARE[0] <= told["kept"] <= _SHARE[1], f"{told['kept']:.0%} keep the label"
      wrong = [what for what in _FAULTS if told[what]]
      assert not wrong, f"{name}: {', '.join(wrong)}"


_FAULTS = (
  "labels changed",
  "labels changed, all drawn",
  "not by rounding",
  "other logits",
)


def compare(name, interval, raw, candidates, whole, early) -> dict[str, Any]:
  """How many of the answers are wrong.

  Args:
    name: of the precision.
    interval: on phi, or None.
    raw: f[N,K], logits without a defense.
    candidates: f[N,M,K].
    whole: what was selected of all candidates.
    early: what was selected by early exit.

  Returns:
    What there was to be seen: "classes" that are answered, and the share of the candidates
    that are "kept", whose label is the raw one; and how many images have faults, `_FAULTS`.
  """
  labels = np.asarray(raw).argmax(-1)
  changed = lambda selection: int(np.sum(np.asarray(selection.logits).argmax(-1) != labels))
  others = differences(whole, early, candidates, np.asarray(raw), interval)
  same = np.setdiff1d(np.arange(len(labels)), [row["image"] for row in others])
  apart = np.abs(np.asarray(whole.logits) - np.asarray(early.logits)).max(-1)[same]
  return {
    "precision": name,
    "interval": "none" if interval is None else "({:.3g}, {:.3g})".format(*interval),
    "images": len(labels),
    "classes": len(np.unique(labels)),
    "kept": float(np.mean(candidates.argmax(-1) == labels[:, None])),
    "drawn": float(np.mean(early.drawn)),
    "labels changed": changed(early),
    "labels changed, all drawn": changed(whole),
    "another candidate": len(others),
    "not by rounding": sum(row["least"] > _ROUNDING[name] for row in others),
    "other logits": int(np.sum(apart > _ROUNDING[name] * np.std(candidates))),
  }
