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
from diffence_jax.attacks import run_attack
from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.audit.answers import Answers
from diffence_jax.audit.shadow import target_view

_CONFIG = config_flags.DEFINE_config_file("config", None, "The audit's.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The audit's.")
_POLICY = "scenario 3"


def main(_) -> None:
  """Asks, attacks and prints."""
  finished = dj.load_run(_WORKDIR.value, _CONFIG.value)
  experiment, store, settings = (
    finished.experiment,
    finished.store,
    finished.experiment.settings,
  )
  ensemble = experiment.shadow_audit.ensemble(store)
  queries, pool = ensemble.queries, ensemble.pool.natural
  images = np.asarray(experiment.audit.samples.images)
  protected = dj.protect(
    finished.predict,
    finished.denoise,
    finished.schedule,
    chunk_size=settings.compute.chunk_size,
    randomness="per_input",
    constant_time=False,
    **finished.settings,
  )
  secret = rng.stream(settings.seed, "per_input")
  draw = np.random.default_rng(rng.numpy_seed(settings.seed, "per_input"))
  ask = lambda asked: np.asarray(protected(secret, asked.astype(np.float32) / 255.0))

  once = ask(images)
  assert np.array_equal(once, ask(images)), "the same image got another answer"
  near = []
  for _ in range(max(queries)):
    change = draw.integers(-1, 2, images.shape)
    near.append(ask(np.clip(images + change, 0, 255).astype(np.uint8)))
  answers = {
    "the same image": np.repeat(once[:, None], max(queries), axis=1),
    "near-duplicates": np.stack(near, axis=1),
  }
  reported = pool.reported("disjoint")
  print("\n| asked | k | confidence | LiRA online | RMIA online |\n|---|---|---|---|---|")
  for name, logits in answers.items():
    target = Answers(logits[:, None], pool.labels)
    for at, k in enumerate(queries):
      # The shadow models are asked as often, each time with fresh noise; once, where the target
      # answers no more than once.
      view = target_view(target, ensemble, _POLICY, 0 if name == "the same image" else at)
      cells = []
      for attack in ("confidence", "lira_online", "rmia_online"):
        scores = run_attack(ATTACKS.choose(attack), view)
        roc = metrics.roc(scores[reported & pool.is_member], scores[reported & ~pool.is_member])
        low, high = roc.auc_interval
        cells.append(f"{roc.auc:.3f} [{low:.3f}, {high:.3f}]")
      print(f"| {name} | {k} | {' | '.join(cells)} |")


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
