"""Diffence on Fashion-MNIST (28x28, gray) at the paper's scale, for an accelerator.

    diffence --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

The images come with Debian's package: `apt-get install dataset-fashion-mnist`. On two CPU cores
use `fashion_mnist_small.py`.

Cost: an accelerator's job, not yet measured; nearly all of it is the diffusion model's 800,000
training steps.
Result to expect: not in the paper; the small variant's results are in docs/results.md.
`fashion_mnist.py:audit` adds 128 shadow models and every attack there is, on 25,000 members and
as many non-members: 128 times the classifier's training, not yet measured.
`fashion_mnist.py:smoke` and `:audit_smoke` run every stage on a few of the images, too small to
learn from, in about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from diffence_jax.experiment.presets import check_variant, paper_config, shrink


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is "", "smoke", "audit" or "audit_smoke"."""
  check_variant(variant, ("smoke", "audit", "audit_smoke"))
  config = paper_config()
  config.name = "fashion_mnist"
  config.variant = variant

  config.data.source = "idx"
  config.data.options = ConfigDict({"path": "/usr/share/datasets/fashion-mnist"})
  config.data.num_members = 25_000
  config.data.num_nonmembers = 10_000
  config.data.num_reference = 25_000

  config.defenses.early_stopping.stop_after = 10

  if variant.startswith("audit"):
    # As many non-members as members: a shadow model's half is as large as the target's set.
    config.data.nonmembers_from = "any"
    config.data.num_nonmembers = 25_000
    config.data.num_reference = 20_000
    config.shadow.num_models = 128
    config.shadow.num_canaries = 500
    config.shadow.queries = (1, 4, 16, 64)
    config.shadow.num_recorded = 80
    config.shadow.near_duplicates = True
    config.audit.num_label_only = 500
  if variant.endswith("smoke"):
    shrink(config)
  return config
