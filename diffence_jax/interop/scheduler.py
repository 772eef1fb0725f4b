"""The noise schedule that the scheduler of a Diffusers pipeline was configured with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffence_jax.diffusion.schedule import make_schedule

# Schedulers of the discrete, variance-preserving kind, all with these defaults.
_SCHEDULERS = (
  "DDIMParallelScheduler",
  "DDIMScheduler",
  "DDPMParallelScheduler",
  "DDPMScheduler",
  "DEISMultistepScheduler",
  "DPMSolverMultistepScheduler",
  "DPMSolverSinglestepScheduler",
  "EulerAncestralDiscreteScheduler",
  "EulerDiscreteScheduler",
  "LMSDiscreteScheduler",
  "PNDMScheduler",
  "UniPCMultistepScheduler",
)
_DEFAULTS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
# What a network predicts, in Diffusers' words, to ours.
_PREDICTIONS = {"epsilon": "noise", "sample": "clean", "v_prediction": "v"}
# Diffusers' name of a schedule to ours.
_KINDS = {
  "linear": "linear",
  "scaled_linear": "scaled_linear",
  "sigmoid": "sigmoid",
  "squaredcos_cap_v2": "cosine",
}


def schedule_options(
  config: Mapping[str, Any], path: Path, predicts: str | None = "epsilon"
) -> dict[str, Any]:
  """The schedule that a scheduler's config describes.

  Args:
    config: of `scheduler_config.json`; what it leaves out has Diffusers' defaults.
    path: of the file, for errors.
    predicts: what the network is to predict, in Diffusers' words; None for anything.

  Returns:
    Options of `diffusion.make_schedule`, as JSON has them; those of a linear one are without
    its kind.

  Raises:
    ValueError: the network predicts something else, or the schedule is not one
      of discrete steps that keep the variance and end with some signal.
  """
  kind = config.get("_class_name", "DDPMScheduler")
  if kind not in _SCHEDULERS:
    raise ValueError(
      f"{path} is of a {kind}; expected one for networks that predict the noise of discrete "
      f"steps: {', '.join(_SCHEDULERS)}."
    )
  told = config.get("prediction_type", "epsilon")
  if predicts not in (None, told):
    raise ValueError(
      f"The network predicts {told!r}, says {path}; expected {predicts!r}. Read it by "
      f"from_torch(..., predicts={told!r}); its denoiser goes through dj.diffusion.as_noise, "
      "that of a saved model that `diffence import-torch` makes by itself."
    )
  for option, reason in (
    ("rescale_betas_zero_snr", "no image follows from the noise at its last step"),
    ("use_flow_sigmas", "its steps are those of flow matching"),
  ):
    if config.get(option):
      raise ValueError(f"{path} has {option}, so {reason}; expected a network without it.")
  variance = config.get("variance_type") or "fixed_small"
  if variance in ("learned", "learned_range"):
    raise ValueError(
      f"{path} has variance_type {variance!r}; expected a fixed one, of a network that "
      "predicts the noise alone."
    )
  options = _options(config, path)
  try:
    make_schedule(**options)
  except (ValueError, TypeError) as error:
    raise ValueError(f"The schedule of {path} is not right: {error}") from error
  return options


def prediction(config: Mapping[str, Any], path: Path) -> str:
  """What the network of a scheduler's config predicts, one of `models.saved.PREDICTIONS`.

  Args:
    config: as above.
    path: of the file, for errors.

  Raises:
    ValueError: something that we do not know.
  """
  told = config.get("prediction_type", "epsilon")
  if not isinstance(told, str) or told not in _PREDICTIONS:
    raise ValueError(
      f"The network predicts {told!r}, says {path}; expected {', '.join(_PREDICTIONS)}."
    )
  return _PREDICTIONS[told]


def _options(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
  """The options, not yet checked."""
  if (betas := config.get("trained_betas")) is not None:
    return {"kind": "betas", "betas": betas}
  kind = config.get("beta_schedule", "linear")
  if not isinstance(kind, str) or kind not in _KINDS:
    raise ValueError(f"{path} has beta_schedule {kind!r}; expected one of {', '.join(_KINDS)}.")
  num_steps, start, end = (config.get(name, value) for name, value in _DEFAULTS.items())
  options = {"num_steps": num_steps}
  if kind != "squaredcos_cap_v2":
    options |= {"beta_start": start, "beta_end": end}
  return options if kind == "linear" else {"kind": _KINDS[kind], **options}
