"""Diffence on 10,000 of Fashion-MNIST's images (28x28, gray), for two CPU cores.

    apt-get install dataset-fashion-mnist      # Debian's package of the four IDX files
    diffence --config=configs/fashion_mnist_small.py --workdir=runs/fashion_mnist_small

Cost: about 21 minutes on two CPU cores.
Result to expect (docs/results.md): highest attack AUC 0.70 undefended; 0.61 in each of the
scenarios 1, 2 and 3, with no label changed and a gap floor of 0.58; test accuracy 84%.
`fashion_mnist_small.py:smoke` runs the same stages, too small to learn from, in about a minute.

    python experiments/defense_table.py --config=configs/fashion_mnist_small.py \
      --workdir=runs/fashion_defenses --seeds=0

trains eight other defenses too, and shows each alone and under Diffence (docs/results.md): some
two to three hours on two CPU cores from nothing, not measured as a whole; it resumes.

    diffence --config=configs/fashion_mnist_small.py:audit --workdir=runs/fashion_audit

adds 16 shadow models and every attack there is, on 1,000 members and 1,000 non-members.
Cost: about an hour on two CPU cores. `fashion_mnist_small.py:audit_smoke` is its smoke test.
"""

from ml_collections import ConfigDict

from diffence_jax.attacks import ATTACKS
from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.presets import check_variant, shrink


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is "", "smoke", "audit" or "audit_smoke"."""
  check_variant(variant, ("smoke", "audit", "audit_smoke"))
  config = base_config()
  config.name = "fashion_mnist_small"
  config.variant = variant

  config.data.source = "idx"
  config.data.options = ConfigDict({"path": "/usr/share/datasets/fashion-mnist"})
  config.data.num_members = 2500
  config.data.num_nonmembers = 2500
  config.data.num_reference = 5000
  config.data.nonmembers_from = "test"

  config.classifier.model = "small_resnet"
  config.classifier.fields = ConfigDict({"width": 16})
  config.classifier.epochs = 30

  config.diffusion.fields = ConfigDict(
    {"channels": 32, "multipliers": (1, 2, 2), "attention_levels": (2,), "num_res_blocks": 1}
  )
  config.diffusion.num_steps = 2000
  config.diffusion.batch_size = 32
  config.diffusion.warmup_steps = 200
  config.compute.checkpoint_every = 200

  config.purify.num_candidates = 10
  config.compute.batch_size = 128

  config.defenses.early_stopping.stop_after = 6
  # Chosen on known samples, as docs/defenses.md tells: whole batches, few steps, a high rate.
  config.defenses.dpsgd_tuned.batch_size = 2500
  config.defenses.dpsgd_tuned.epochs = 60
  config.defenses.dpsgd_tuned.learning_rate = 0.03
  config.defenses.dpsgd_tuned.multiplicity = 1

  if variant.startswith("audit"):
    # Fewer samples, and as many of both kinds: a shadow model's half is as large as the
    # target's training set, and 16 of them train in minutes.
    config.data.num_members = 1000
    config.data.num_nonmembers = 1000
    config.shadow.num_models = 16
    config.shadow.num_canaries = 50
    config.shadow.queries = (1, 4, 16)
    config.shadow.num_recorded = 16
    config.shadow.near_duplicates = True
    config.audit.num_label_only = 50
    config.defenses.dpsgd_tuned.batch_size = 1000
  if variant == "audit":
    config.audit.attacks = tuple(ATTACKS.known)  # those that run on request too
  if variant.endswith("smoke"):
    shrink(config)
  return config
