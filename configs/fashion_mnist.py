"""Diffence on Fashion-MNIST (28x28, gray) at the paper's scale, for an accelerator.

    diffence --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

The images come with Debian's package: `apt-get install dataset-fashion-mnist`. On two CPU cores
use `fashion_mnist_small.py`.

Cost: an accelerator's job, not yet measured; nearly all of it is the diffusion model's 800,000
training steps.
Result to expect: not in the paper; the small variant's results are in docs/results.md.
`fashion_mnist.py:smoke` runs every stage on a few of the images, too small to learn from, in
under a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from diffence_jax.config import check_variant, paper_config, shrink


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is "" or "smoke"."""
  check_variant(variant, ("smoke",))
  config = paper_config()
  config.name = "fashion_mnist"
  config.variant = variant

  config.data.source = "idx"
  config.data.options = ConfigDict({"path": "/usr/share/datasets/fashion-mnist"})
  config.data.num_members = 25_000
  config.data.num_nonmembers = 10_000
  config.data.num_reference = 25_000

  if variant == "smoke":
    shrink(config)
  return config
