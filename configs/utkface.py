"""Diffence on UTKFace: ResNet18, 5,000 members, 4 classes (races), 64x64.

    diffence --config=configs/utkface.py --workdir=runs/utkface

Get the data from its authors (Zhang, Song & Qi 2017, "UTKFace", for research that is not
commercial): the aligned and cropped faces, as a folder `data/utkface`, or set
`--config.data.options.path`:

    data/utkface/26_1_0_20170116184024662.jpg.chip.jpg ...

It has no test part: non-members are drawn from all images, as members are.

The diffusion model is that of ImageNet, 256x256 and unconditional, of guided-diffusion; import
its checkpoint once:

    diffence import-torch adm_unet 256x256_diffusion_uncond.pt --output=models/imagenet

Cost: an accelerator's job, not yet measured; `python experiments/imagenet_cost.py` tells what a
query costs at least.
Result to expect: the paper's, AUC lower by 9.5% and attack accuracy by 9.9%.
`utkface.py:smoke` runs every stage on a few of the images, too small to learn from,
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
  config.name = "utkface"
  config.variant = variant

  config.data.source = "utkface"
  config.data.options = ConfigDict(
    {"path": "data/utkface", "image_size": 64, "in_memory": True}
  )
  config.data.num_members = 5_000
  config.data.num_nonmembers = 5_000
  config.data.num_reference = 5_000
  config.data.nonmembers_from = "any"
  config.classifier.fields = ConfigDict({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})

  imagenet_purification(config)
  config.diffusion.saved_model = "models/imagenet"

  config.defenses.advreg.alpha = 4.0
  if variant == "smoke":
    shrink(config)
  return config
