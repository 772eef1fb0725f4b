"""Diffence on CIFAR-10 with the paper's settings: ResNet18, 25,000 members, N=30, T=160.

    diffence --config=configs/cifar10.py --workdir=runs/cifar10

Prepare the data once, with TensorFlow for that one step (`pip install -e '.[tfds]'`):

    python -c "import tensorflow_datasets as tfds
    tfds.builder('cifar10', file_format='array_record').download_and_prepare()"

Cost: an accelerator's job, not yet measured; nearly all of it is the diffusion model's 800,000
training steps.
Result to expect: the paper's averages over CIFAR-10, CIFAR-100 and SVHN, highest attack AUC
79.1% undefended and 68.1 / 70.8 / 69.1% in scenarios 1 / 2 / 3, with no accuracy lost.
`cifar10.py:densenet121`, `:vgg16_bn` and `:vit` train the paper's other classifiers; in the
same workdir they take the diffusion model from the run with ResNet18.
`cifar10.py:smoke` runs every stage on a few of the images, too small to learn from, in
under a minute on two CPU cores; `:densenet121_smoke`, `:vgg16_bn_smoke` and `:vit_smoke` do
so with the other classifiers, in a little more.

For the partition of the paper's public code, to audit a checkpoint trained with it, say, give
original indices: ids are the positions in CIFAR-10's own order, 0 to 49,999 for the training
images and 50,000 to 59,999 for the test images, whatever their order on disk.

    diffence --config=configs/cifar10.py --workdir=runs/cifar10_published \
      --config.data.index_file=published.json

`published.json` is `{"members": [...], "nonmembers": [...], "reference": [...]}`, of which
random halves become known ones, or has the five groups of `data.Split`. There the members are
the first 25,000 entries of the permutation of the training images in `cifar_shuffle.pkl`, known
ones first, and the reference set the others; test images are permuted by NumPy's
`RandomState(2000)`, and the first half is known (a pickle can run code: open it where that
does no harm):

    import json, pickle, numpy as np
    train = np.array(pickle.load(open("cifar_shuffle.pkl", "rb")))
    test = 50_000 + np.random.RandomState(2000).permutation(10_000)
    groups = [*np.split(train[:25_000], 2), *np.split(test, 2), train[25_000:]]
    names = ["known_members", "target_members", "known_nonmembers", "target_nonmembers",
             "reference"]
    json.dump({n: g.tolist() for n, g in zip(names, groups)}, open("published.json", "w"))
"""

from ml_collections import ConfigDict

from diffence_jax.experiment.presets import choose_paper_variant, paper_config


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is one that `choose_paper_variant` takes."""
  config = paper_config()
  config.name = "cifar10"

  config.data.options = ConfigDict({"name": "cifar10"})
  config.data.num_members = 25_000
  config.data.num_nonmembers = 10_000
  config.data.num_reference = 25_000
  config.classifier.fields = ConfigDict(
    {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
  )

  choose_paper_variant(config, variant)
  return config
