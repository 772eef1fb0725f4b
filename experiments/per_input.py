"""Does `randomness="per_input"` stop who asks again? Measured on a finished audit.

    diffence --config=configs/digits.py:audit --workdir=runs/audit
    python experiments/per_input.py --config=configs/digits.py:audit --workdir=runs/audit

Protects the audit's classifier in scenario 3 by `dj.protect(..., randomness="per_input")` and
asks it: twice about the same images, which must get the same answers, and about
near-duplicates, whole calls of the defense each. LiRA and RMIA use the audit's shadow models,
asked as often. Prints AUCs on the target samples with 95% intervals, in Markdown.
"""

import numpy as np
from absl import app, flags
from ml_collections import config_flags

import diffence_jax as dj
from diffence_jax import metrics, rng
from diffence_jax.audit.answers import Statistics
from diffence_jax.audit.shadow import MAIN_ATTACKS, view_of
from diffence_jax.experiment import run as pipeline
from diffence_jax.experiment.stages import models as stages
from diffence_jax.experiment.stages import shadow as shadow_stages
from diffence_jax.experiment.store import Store

_CONFIG = config_flags.DEFINE_config_file("config", None, "The audit's.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The audit's.")
_QUERIES = (1, 4, 16)


def main(_) -> None:
  """Asks, attacks and prints."""
  experiment, store = pipeline.plan(_CONFIG.value), Store(_WORKDIR.value)
  config = experiment.config
  membership, statistics = shadow_stages.load_ensemble_statistics(experiment, store, _QUERIES)
  shadow = statistics["scenario 3"]
  images, pool = shadow_stages.pool_of(experiment)
  images, labels = images[~pool.is_canary], pool.labels[~pool.is_canary]
  schedule, sampler = stages.sampler_of(config)
  protected = dj.protect(
    dj.models.predictor(*stages.load_classifier(experiment, store)),
    dj.models.denoiser(*stages.load_purifier(experiment, store)),
    schedule,
    num_candidates=config.purify.num_candidates,
    chunk_size=config.purify.chunk_size,
    randomness="per_input",
    constant_time=False,
    **sampler,
  )
  secret = rng.stream(config.seed, "per_input")
  draw = np.random.default_rng(rng.numpy_seed(config.seed, "per_input"))

  def phi_of(asked):
    logits = protected(secret, asked.astype(np.float32) / 255.0)
    return dj.attacks.true_label_phi(np.asarray(logits), labels)

  once = phi_of(images)
  assert np.array_equal(once, phi_of(images)), "the same image got another answer"
  near = []
  for _ in range(max(_QUERIES)):
    change = draw.integers(-1, 2, images.shape)
    near.append(phi_of(np.clip(images + change, 0, 255).astype(np.uint8)))
  near = np.stack(near, axis=1)
  reported = (~pool.is_known & ~pool.is_canary)[~pool.is_canary]
  is_member = pool.is_member[~pool.is_canary]
  print("\n| asked | k | confidence | LiRA online | RMIA online |\n|---|---|---|---|---|")
  for name in ("the same image", "near-duplicates"):
    for at, k in enumerate(_QUERIES):
      answers = np.repeat(once[:, None], k, axis=1) if name == "the same image" else near[:, :k]
      phi = answers.mean(axis=1)[:, None, None]
      log_p = np.log(np.mean(1.0 / (1.0 + np.exp(-answers)), axis=1))[:, None, None]
      # What the shadow models are asked: as often, each time with fresh noise.
      at_k = shadow._replace(
        phi=shadow.phi[..., at : at + 1], log_p=shadow.log_p[..., at : at + 1]
      )
      if name == "the same image":
        at_k = shadow._replace(phi=shadow.phi[..., :1], log_p=shadow.log_p[..., :1])
      view = view_of(Statistics(phi, log_p, 0.0), at_k, membership, pool)
      cells = []
      for attack in ("confidence", "lira_online", "rmia_online"):
        scores = MAIN_ATTACKS[attack](view)
        roc = metrics.roc(scores[reported & is_member], scores[reported & ~is_member])
        low, high = roc.auc_interval
        cells.append(f"{roc.auc:.3f} [{low:.3f}, {high:.3f}]")
      print(f"| {name} | {k} | {' | '.join(cells)} |")


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
