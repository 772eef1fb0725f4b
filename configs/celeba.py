"""Diffence on CelebA: ResNet18, 10,000 members, 8 classes of three attributes, 64x64.

    diffence --config=configs/celeba.py --workdir=runs/celeba

Get the data from its authors (Liu et al. 2015, "CelebA", for research that is not commercial):
the aligned and cropped images, the list of attributes and that of partitions, and put them side
by side into `data/celeba`, or set `--config.data.options.path`:

    data/celeba/img_align_celeba/000001.jpg ... 202599.jpg
    data/celeba/list_attr_celeba.txt
    data/celeba/list_eval_partition.txt

All images take 2.5 GB of memory; `--config.data.options.in_memory=False` decodes them whenever
they are asked for instead.

The diffusion model is that of ImageNet, 256x256 and unconditional, of guided-diffusion; import
its checkpoint once:

    diffence import-torch adm_unet 256x256_diffusion_uncond.pt --output=models/imagenet

Cost: an accelerator's job, not yet measured; `python experiments/imagenet_cost.py` tells what a
query costs at least.
Result to expect: the paper's, AUC lower by 6.2% and attack accuracy by 6.0%.
`celeba.py:smoke` runs every stage on a few of the images, too small to learn from,
with a small network of the same kind that it trains.
"""

from ml_collections import ConfigDict

from diffence_jax.experiment.presets import (
  check_variant,
  imagenet_purification,
  paper_config,
  shrink,
)


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is "" or "smoke"."""
  check_variant(variant, ("smoke",))
  config = paper_config()
  config.name = "celeba"
  config.variant = variant

  config.data.source = "celeba"
  config.data.options = ConfigDict({"path": "data/celeba", "image_size": 64, "in_memory": True})
  config.data.num_members = 10_000
  config.data.num_nonmembers = 10_000
  config.data.num_reference = 10_000
  config.classifier.fields = ConfigDict({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})

  imagenet_purification(config)
  config.diffusion.saved_model = "models/imagenet"

  config.defenses.advreg.alpha = 4.0
  if variant == "smoke":
    shrink(config)
  return config
