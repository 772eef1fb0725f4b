"""Diffence on SVHN with the paper's settings: ResNet18, 5,000 members, N=30, T=160.

    diffence --config=configs/svhn.py --workdir=runs/svhn

Prepare the data once, with TensorFlow for that one step (`pip install -e '.[tfds]'`):

    python -c "import tensorflow_datasets as tfds
    tfds.builder('svhn_cropped', file_format='array_record').download_and_prepare()"

Cost: an accelerator's job, not yet measured; nearly all of it is the diffusion model's 800,000
training steps.
Result to expect: the paper's averages over CIFAR-10, CIFAR-100 and SVHN, highest attack AUC
79.1% undefended and 68.1 / 70.8 / 69.1% in scenarios 1 / 2 / 3, with no accuracy lost.
`svhn.py:densenet121`, `:vgg16_bn` and `:vit` train the paper's other classifiers; in the
same workdir they take the diffusion model from the run with ResNet18.
`svhn.py:smoke` runs every stage on a few of the images, too small to learn from, in
under a minute on two CPU cores; `:densenet121_smoke`, `:vgg16_bn_smoke` and `:vit_smoke` do
so with the other classifiers, in a little more.
"""

from ml_collections import ConfigDict

from diffence_jax.experiment.presets import choose_paper_variant, paper_config


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is one that `choose_paper_variant` takes."""
  config = paper_config()
  config.name = "svhn"

  config.data.options = ConfigDict({"name": "svhn_cropped"})
  config.data.num_members = 5_000
  config.data.num_nonmembers = 10_000
  config.data.num_reference = 25_000
  config.classifier.fields = ConfigDict({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})

  config.defenses.hamp.gamma = 0.95
  config.defenses.hamp.alpha = 0.005
  config.defenses.relaxloss.alpha = 0.1
  config.defenses.dpsgd.noise_multiplier = 0.05
  choose_paper_variant(config, variant)
  return config
