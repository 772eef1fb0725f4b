"""Diffence on CIFAR-100 with the paper's settings: ResNet18, 25,000 members, N=30, T=160.

    diffence --config=configs/cifar100.py --workdir=runs/cifar100

Prepare the data once, with TensorFlow for that one step (`pip install -e '.[tfds]'`):

    python -c "import tensorflow_datasets as tfds
    tfds.builder('cifar100', file_format='array_record').download_and_prepare()"

Cost: an accelerator's job, not yet measured; nearly all of it is the diffusion model's 800,000
training steps.
Result to expect: the paper's averages over CIFAR-10, CIFAR-100 and SVHN, highest attack AUC
79.1% undefended and 68.1 / 70.8 / 69.1% in scenarios 1 / 2 / 3, with no accuracy lost.
`cifar100.py:densenet121`, `:vgg16_bn` and `:vit` train the paper's other classifiers; in the
same workdir they take the diffusion model from the run with ResNet18.
`cifar100.py:smoke` runs every stage on a few of the images, too small to learn from, in
under a minute on two CPU cores; `:densenet121_smoke`, `:vgg16_bn_smoke` and `:vit_smoke` do
so with the other classifiers, in a little more.
"""

from ml_collections import ConfigDict

from diffence_jax.experiment.presets import choose_paper_variant, paper_config


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is one that `choose_paper_variant` takes."""
  config = paper_config()
  config.name = "cifar100"

  config.data.options = ConfigDict({"name": "cifar100"})
  config.data.num_members = 25_000
  config.data.num_nonmembers = 10_000
  config.data.num_reference = 25_000
  config.classifier.fields = ConfigDict(
    {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}
  )

  config.defenses.hamp.alpha = 0.0005
  config.defenses.relaxloss.alpha = 0.3
  config.defenses.dpsgd.noise_multiplier = 0.05
  choose_paper_variant(config, variant)
  return config
