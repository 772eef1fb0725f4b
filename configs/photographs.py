"""Diffence with a 256x256 diffusion model on 32x32 photographs, at a width for two CPU cores.

    diffence --config=configs/photographs.py --workdir=runs/photographs

The path that the public ImageNet model takes, end to end, with a narrow network of its kind:
tiles of the two photographs that scikit-learn ships are scaled to 256x256, noised to T = 200,
re-generated in two DDIM steps on `ddim5` with the clean image clipped, and scaled back.
The network is trained on the classifier's members; to take a published one instead:

    diffence import-torch adm_unet 256x256_diffusion_uncond.pt --output=models/imagenet
    diffence --config=configs/photographs.py --workdir=runs/imagenet \
      --config.diffusion.saved_model=models/imagenet

Cost: about 45 minutes on two CPU cores; with the published model an accelerator's job
(`python experiments/imagenet_cost.py`).
Result to expect (docs/results.md): no label changes, and there is nothing to gain. The two
photographs are told apart without error, so the undefended classifier leaks less than 150
images can show (highest AUC 0.57, interval 0.48 to 0.67). It shows the path, not the defense.
`photographs.py:smoke` runs the same stages, too small to learn from, in about a minute.
"""

from ml_collections import ConfigDict

from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.presets import check_variant, imagenet_purification, shrink


def get_config(variant: str = "") -> ConfigDict:
  """The settings; `variant` is "" or "smoke"."""
  check_variant(variant, ("smoke",))
  config = base_config()
  config.name = "photographs"
  config.variant = variant

  config.data.source = "photographs"
  config.data.num_members = 100
  config.data.num_nonmembers = 200

  config.classifier.model = "small_resnet"
  config.classifier.fields = ConfigDict({"width": 16})
  config.classifier.epochs = 60
  config.classifier.batch_size = 20

  imagenet_purification(config)
  config.purify.num_candidates = 10
  config.compute.chunk_size = 20
  config.compute.batch_size = 20
  config.diffusion.model = "adm_unet"
  config.diffusion.fields = ConfigDict(
    {
      "channels": 16,
      "multipliers": (1, 1, 2, 2, 4, 4),
      "attention_levels": (4, 5),
      "num_res_blocks": 1,
      "num_head_channels": 16,
      "learned_variance": False,
    }
  )
  config.diffusion.num_steps = 300
  config.diffusion.batch_size = 4
  config.compute.checkpoint_every = 50
  config.samples.num_images = 4
  config.samples.num_reconstructions = 2
  config.samples.num_ddim_steps = 20

  if variant == "smoke":
    shrink(config)
  return config
