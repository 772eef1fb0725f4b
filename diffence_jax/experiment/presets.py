"""Settings that several experiments share: the paper's, their variants, and smoke tests."""

from ml_collections import ConfigDict

from diffence_jax.experiment.config import base_config
from diffence_jax.named import nearest

# The paper's classifiers beside ResNet18, and what they are trained with other than it.
_OTHER_CLASSIFIERS = {"densenet121": {}, "vgg16_bn": {}, "vit": {"learning_rate": 1e-4}}

# Of a smoke test's classifier: what takes longest there is to trace and compile its layers.
_FEWER_BLOCKS = {
  "densenet121": (2, 2, 2, 2),  # all 58 take a minute or two on a CPU
  "resnet18": (1, 1, 1, 1),
}


def paper_config() -> ConfigDict:
  """The paper's settings (section VI.A) for 32x32 images, over `base_config`."""
  config = base_config()
  config.data.source = "tfds"
  config.data.nonmembers_from = "test"
  config.classifier.model = "resnet18"
  config.classifier.epochs = 100
  config.classifier.batch_size = 128
  config.diffusion.num_steps = 800_000
  config.diffusion.batch_size = 128
  config.diffusion.learning_rate = 2e-4
  config.diffusion.warmup_steps = 5000
  config.diffusion.ema_decay = 0.9999
  config.compute.checkpoint_every = 5000
  # DP-SGD has a gradient of every example: of this ResNet18 45 MB each, and a batch is filled
  # up to 216. XLA takes 11.5 GiB for a whole one, 1.5 GiB with 32 at a time.
  config.compute.microbatch_size = 32
  return config


def imagenet_purification(config: ConfigDict) -> None:
  """The paper's settings for guided-diffusion's ImageNet model at 256x256: T = 200, N = 10."""
  config.diffusion.model = "adm_unet"
  config.diffusion.image_shape = (256, 256, 3)
  config.purify.num_candidates = 10
  config.purify.respacing = "ddim5"
  config.purify.step = 2  # of those five: T = 200
  config.purify.num_ddim_steps = 2
  config.purify.clip = True
  config.purify.to_clean = True
  config.samples.num_images = 4


def choose_paper_variant(config: ConfigDict, variant: str) -> None:
  """Makes one of its variants of an experiment with the paper's settings.

  Args:
    config: the experiment, of `paper_config`; all but the variant is set. Changed in place.
    variant: "", "smoke", or another classifier of the paper, "densenet121", "vgg16_bn" or
      "vit", alone or as in "vit_smoke".

  Raises:
    ValueError: there is no such variant.
  """
  names = tuple(_OTHER_CLASSIFIERS)
  check_variant(variant, ("smoke", *names, *(f"{name}_smoke" for name in names)))
  config.variant = variant
  name = variant.removesuffix("smoke").removesuffix("_")
  if name:
    config.classifier.model = name
    config.classifier.update(_OTHER_CLASSIFIERS[name])
  if variant.endswith("smoke"):
    shrink(config)


def shrink(config: ConfigDict) -> None:
  """Makes an experiment a smoke test: every stage, seconds each, nothing learnt."""
  config.data.num_members = 48
  config.data.num_nonmembers = 48
  config.data.num_reference = 16
  narrow = {"width": 8}
  if config.classifier.model in _FEWER_BLOCKS:
    narrow["stages"] = _FEWER_BLOCKS[config.classifier.model]
  config.classifier.fields = ConfigDict({**config.classifier.fields, **narrow})
  config.classifier.epochs = 2
  config.classifier.batch_size = 16
  # Its middle has attention too.
  small = {"channels": 16, "multipliers": (1,), "attention_levels": (), "num_res_blocks": 1}
  if config.diffusion.model == "adm_unet":
    small["num_head_channels"] = 8
  config.diffusion.fields = ConfigDict({**config.diffusion.fields, **small})
  config.diffusion.saved_model = ""
  if config.diffusion.image_shape:
    config.diffusion.image_shape = (32, 32, 3)
  config.defenses.early_stopping.stop_after = 1
  config.defenses.dpsgd_tuned.batch_size = None
  config.defenses.dpsgd_tuned.epochs = None
  config.defenses.selena.num_teachers = 4
  config.defenses.selena.num_left_out = 2
  config.defenses.memguard.epochs = 5
  config.defenses.memguard.max_iterations = 20
  config.diffusion.num_steps = 16
  config.diffusion.batch_size = 8
  config.diffusion.warmup_steps = 4
  config.compute.checkpoint_every = 3
  config.compute.optimize = False
  config.purify.num_candidates = 3
  config.compute.chunk_size = 48
  config.compute.batch_size = 48
  if config.shadow.num_models:
    config.shadow.num_models = 6
    config.shadow.num_canaries = min(config.shadow.num_canaries, 4)
    config.shadow.queries = (1, 2)
    config.shadow.num_recorded = 5
  config.attacks.nn.epochs = 3
  config.attacks.hop_skip_jump.num_iterations = 3
  config.audit.num_label_only = min(config.audit.num_label_only, 4)
  config.audit.num_optimised = 0  # which takes more shadow models than there are here
  config.samples.num_images = 4
  config.samples.num_reconstructions = 2
  config.samples.num_ddim_steps = 5


def check_variant(variant: str, known: tuple[str, ...]) -> None:
  """Raises ValueError unless `variant` is "" or one of `known`."""
  if variant and variant not in known:
    raise ValueError(f"There is no variant {variant!r}{nearest(variant, list(known))}")
