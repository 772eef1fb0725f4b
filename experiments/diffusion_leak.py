"""What leaks through the diffusion model itself? Attacked alone, on a finished run.

    diffence --config=configs/digits.py --workdir=runs/digits
    python experiments/diffusion_leak.py --config=configs/digits.py --workdir=runs/digits

The attacker has the network and no classifier. Two scores, at each of `--steps`: the training
loss, averaged over `--draws` noises (Matsumoto et al. 2023, arXiv:2302.03262), and how far the
network's answer to its own noise is from it, which draws none (PIA, Kong et al. 2023,
arXiv:2305.18355, with the fourth power of the difference). Members are those of the classifier,
which the diffusion model was trained on where `diffusion.trained_on` is "members": with
"reference" there is nothing to find. The step is chosen on known samples; AUC and TPR at 1% FPR
are of target samples, in Markdown, with 95% intervals.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import diffence_jax as dj
from diffence_jax import metrics, rng
from diffence_jax.batching import in_batches, to_float
from diffence_jax.diffusion.loss import predicted_noise
from diffence_jax.diffusion.schedule import add_noise

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's.")
_STEPS = flags.DEFINE_list("steps", ["10", "20", "40", "80", "160", "320"], "Of diffusion.")
_DRAWS = flags.DEFINE_integer("draws", 32, "Noises of each image and step.")
_LIMIT, _BATCH = 0.01, 128


def make_scores(denoise, schedule, num_draws: int) -> dict[str, Callable[..., jax.Array]]:
  """The scores by name: `(key, images f32[N,H,W,C], step) -> f32[N]`, higher for members."""

  def at(images, step):
    return 2.0 * images - 1.0, jnp.full(len(images), step, jnp.int32)

  def loss(key, images, step):
    clean, t = at(images, step)

    def one(total, number):
      noise = jax.random.normal(jax.random.fold_in(key, number), clean.shape, clean.dtype)
      noised = add_noise(schedule, clean, noise, t)
      apart = predicted_noise(denoise, schedule, noised, t) - noise
      return total + jnp.mean(jnp.square(apart), axis=(1, 2, 3)), None

    total, _ = jax.lax.scan(one, jnp.zeros(len(clean)), jnp.arange(num_draws))
    return -total / num_draws

  def proximal(key, images, step):
    del key
    clean, t = at(images, step)
    noise = predicted_noise(denoise, schedule, clean, jnp.zeros_like(t))
    apart = predicted_noise(denoise, schedule, add_noise(schedule, clean, noise, t), t) - noise
    return -jnp.mean(apart**4, axis=(1, 2, 3))

  return {f"loss, {num_draws} noises": loss, "PIA": proximal}


def measure(finished, steps: Sequence[int], num_draws: int) -> list[dict]:
  """A row for each score: the step that known samples chose, and target samples' ROC there."""
  experiment = finished.experiment
  pool, samples = experiment.audit.pool, experiment.audit.samples
  key = rng.stream(experiment.settings.seed, "diffusion_leak")
  rows = []
  for name, score in make_scores(finished.denoise, finished.schedule, num_draws).items():
    ask = functools.partial(jax.jit(score), key)
    by_step = [_scores(ask, samples.images, step) for step in steps]
    curves = {
      is_known: [
        metrics.roc(
          scores[pool.is_member & (pool.is_known == is_known)],
          scores[~pool.is_member & (pool.is_known == is_known)],
        )
        for scores in by_step
      ]
      for is_known in (True, False)
    }
    best = int(np.argmax([curve.auc for curve in curves[True]]))
    target = curves[False][best]
    rows.append({
      "score": name,
      "step": steps[best],
      "known": curves[True][best].auc,
      "auc": (target.auc, *target.auc_interval),
      "tpr": target.tpr_at_fpr(_LIMIT),
    })  # fmt: skip
  return rows


def _scores(ask, images, step):
  return in_batches(lambda rows: ask(to_float(images[rows]), step), len(images), _BATCH)


def main(_) -> None:
  """Measures and prints."""
  finished = dj.load_run(_WORKDIR.value, _CONFIG.value)
  rows = measure(finished, [int(step) for step in _STEPS.value], _DRAWS.value)
  print("\n| score | step | AUC, known | AUC | TPR at 1% FPR |\n|---|---|---|---|---|")
  for row in rows:
    auc, tpr = row["auc"], row["tpr"]
    print(
      f"| {row['score']} | {row['step']} | {row['known']:.3f} | {auc[0]:.3f} [{auc[1]:.3f}, "
      f"{auc[2]:.3f}] | {100 * tpr.value:.1f}% [{100 * tpr.low:.1f}, {100 * tpr.high:.1f}] |"
    )


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
