"""Membership privacy for image classifiers in JAX.

Defend a classifier with `protect`, which re-generates every input with a diffusion model
before the classifier sees it; audit what is left with `attacks` and `metrics`; run a whole
experiment with `run`. Names are imported on first use, so `import diffence_jax` is quick.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from diffence_jax import attacks, data, defense, interop, metrics, models, parallel, training
  from diffence_jax.defense import (
    Selection,
    average,
    candidate_logits,
    fit_blend,
    fit_interval,
    mean_kept,
    member_interval,
    protect,
    scaled_logit,
    select,
  )
  from diffence_jax.diffusion import (
    Schedule,
    linear_schedule,
    make_schedule,
    reconstruct,
    respaced,
    sample,
  )
  from diffence_jax.experiment.finished import load_run
  from diffence_jax.experiment.run import run
  from diffence_jax.interop.bundle import load_protected
  from diffence_jax.models import host_predictor
  from diffence_jax.models.saved import load_model, save_model
  from diffence_jax.recorded import audit_model, audit_record

_MODULES = (
  "attacks",
  "data",
  "defense",
  "interop",
  "metrics",
  "models",
  "parallel",
  "training",
)
_HOMES = {
  "Schedule": "diffusion",
  "Selection": "defense",
  "audit_model": "recorded",
  "audit_record": "recorded",
  "average": "defense",
  "candidate_logits": "defense",
  "fit_blend": "defense",
  "fit_interval": "defense",
  "host_predictor": "models",
  "linear_schedule": "diffusion",
  "load_model": "models.saved",
  "load_protected": "interop.bundle",
  "load_run": "experiment.finished",
  "make_schedule": "diffusion",
  "mean_kept": "defense",
  "member_interval": "defense",
  "protect": "defense",
  "reconstruct": "diffusion",
  "respaced": "diffusion",
  "run": "experiment.run",
  "sample": "diffusion",
  "save_model": "models.saved",
  "scaled_logit": "defense",
  "select": "defense",
}

__all__ = [  # noqa: RUF022, modules first
  "attacks",
  "data",
  "defense",
  "interop",
  "metrics",
  "models",
  "parallel",
  "training",
  "Schedule",
  "Selection",
  "audit_model",
  "audit_record",
  "average",
  "candidate_logits",
  "fit_blend",
  "fit_interval",
  "host_predictor",
  "linear_schedule",
  "load_model",
  "load_protected",
  "load_run",
  "make_schedule",
  "mean_kept",
  "member_interval",
  "protect",
  "reconstruct",
  "respaced",
  "run",
  "sample",
  "save_model",
  "scaled_logit",
  "select",
]


def __getattr__(name: str) -> Any:
  if name == "__version__":
    return importlib.metadata.version("diffence_jax")
  if name in _MODULES:
    return importlib.import_module(f"{__name__}.{name}")
  if name in _HOMES:
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted(__all__)
