"""Diffence on scikit-learn's 1,797 digits (8x8), small enough for any machine.

    diffence --config=configs/digits.py --workdir=runs/digits

Cost: about 3 minutes on two CPU cores.
Result to expect (docs/results.md, three seeds): highest attack AUC 0.74 undefended; 0.55, 0.59
and 0.59 in scenarios 1, 2 and 3, with no label changed; test accuracy 96%.
`digits.py:smoke` runs the same stages, too small to learn from, in half a minute.

    python experiments/defense_table.py --config=configs/digits.py --workdir=runs/defenses

trains eight other defenses too, and shows each alone and under Diffence, two seeds each.
Cost: some 40 minutes of processor time.

    diffence --config=configs/digits.py:audit --workdir=runs/audit

adds 64 shadow models and every attack there is, on a smaller classifier.
Cost: about 11 minutes on two CPU cores.
Result to expect (docs/results.md, three seeds): over all models as targets, AUC of online LiRA
0.81 undefended; 0.59, 0.57 and 0.60 in scenarios 1, 2 and 3, and 0.60, 0.63 and 0.66 if a query
is repeated 64 times; of RMIA 0.78; 0.61, 0.58 and 0.60; 0.63, 0.65 and 0.67.
`digits.py:audit_smoke` is its smoke test.
"""

from ml_collections import ConfigDict

from diffence_jax.attacks import ATTACKS
from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.presets import check_variant, shrink


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is "", "smoke", "audit" or "audit_smoke"."""
  check_variant(variant, ("smoke", "audit", "audit_smoke"))
  config = base_config()
  config.name = "digits"
  config.variant = variant

  config.data.source = "digits"
  config.data.num_members = 400
  config.data.num_nonmembers = 800

  config.classifier.model = "small_resnet"
  config.classifier.fields = ConfigDict({"width": 16})
  config.classifier.epochs = 120

  config.diffusion.fields = ConfigDict(
    {"channels": 32, "multipliers": (1, 2), "attention_levels": (1,), "num_res_blocks": 1}
  )
  config.diffusion.num_steps = 1500

  # As the paper sets them for SVHN, digits too; but for the noise of DP-SGD, 0.1 as everywhere.
  config.defenses.early_stopping.stop_after = 15
  config.defenses.hamp.gamma = 0.95
  config.defenses.hamp.alpha = 0.005
  config.defenses.relaxloss.alpha = 0.1
  # Chosen on known samples, as docs/defenses.md tells: whole batches, few steps, a high rate.
  config.defenses.dpsgd_tuned.batch_size = 400
  config.defenses.dpsgd_tuned.epochs = 40
  config.defenses.dpsgd_tuned.learning_rate = 0.03
  config.defenses.dpsgd_tuned.multiplicity = 1

  if variant.startswith("audit"):
    # As many non-members as members: a shadow model's half is as large as the target's set.
    config.data.num_nonmembers = 400
    config.classifier.fields = ConfigDict({"width": 8})
    config.classifier.epochs = 60
    config.diffusion.num_steps = 1000
    config.purify.num_candidates = 10
    config.shadow.num_models = 64
    config.shadow.num_canaries = 20
    config.shadow.queries = (1, 4, 16, 64)
    config.shadow.num_recorded = 80
    config.shadow.near_duplicates = True
    config.audit.num_label_only = 100
  if variant == "audit":
    config.audit.attacks = tuple(ATTACKS.known)  # those that run on request too
  if variant.endswith("smoke"):
    shrink(config)
  return config
