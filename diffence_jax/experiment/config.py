"""The settings of an experiment: typed sections, whose defaults are those of who uses them."""

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.audit.pool import PROTOCOLS
from diffence_jax.audit.typed import to_plain
from diffence_jax.checks import check_choice, check_type, check_whole
from diffence_jax.data import make_split
from diffence_jax.data.augment import KINDS
from diffence_jax.defense import candidate_logits
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES
from diffence_jax.diffusion import linear_schedule, reconstruct, sample
from diffence_jax.experiment.purification import DTYPES
from diffence_jax.experiment.stage import Compute
from diffence_jax.named import defaults_of, nearest, option_key, options_of, section
from diffence_jax.rng import MAX_ID
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.recipe import TrainSettings
from diffence_jax.training.registry import DEFENSES

# Defaults of the functions that the settings are for.
_SPLIT, _SAMPLER = defaults_of(make_split, 1), defaults_of(reconstruct, 4)
_CANDIDATES, _SAMPLE = defaults_of(candidate_logits, 5), defaults_of(sample, 4)


def _section(**known: Any) -> Any:
  """A section whose keys belong to somebody else, who checks them."""
  return dataclasses.field(default_factory=lambda: dict(known))


@dataclasses.dataclass(frozen=True)
class Data:
  """What is known of whom: see `data.make_split`."""

  source: str = "digits"  # a name of data.SOURCES, or module:function
  options: Mapping[str, Any] = _section()  # what the source takes: path, name, ...
  num_members: int = 400
  num_nonmembers: int = 400
  num_reference: int | None = _SPLIT["num_reference"]  # None: all that is left
  known_fraction: float = _SPLIT["known_fraction"]  # of each side; the rest are targets
  nonmembers_from: str = _SPLIT["nonmembers_from"]  # or "test": the source's test part
  index_file: str = ""  # an explicit split; replaces the sizes above


@dataclasses.dataclass(frozen=True)
class Classifier:
  """The target, and how it is trained: see `training.TrainSettings`."""

  model: str = "small_resnet"
  fields: Mapping[str, Any] = _section()  # what the model takes: width, mean, ...
  checkpoint: str = ""  # a saved model's folder: taken as it is, not trained
  defense: str = "undefended"  # a name of training.registry.DEFENSES, or module:function
  epochs: int = TrainSettings.epochs
  batch_size: int = TrainSettings.batch_size
  learning_rate: float = TrainSettings.learning_rate
  weight_decay: float = TrainSettings.weight_decay

  def __post_init__(self):
    self.settings(1)

  def settings(self, num_members: int) -> TrainSettings:
    """How a classifier of so many members is trained."""
    names = ("epochs", "batch_size", "learning_rate", "weight_decay")
    return TrainSettings(num_members, **{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Diffusion(DenoiserSettings):
  """The diffusion model, and how it is trained."""

  model: str = "ddpm_unet"
  fields: Mapping[str, Any] = _section()  # what the model takes: channels, multipliers, ...
  checkpoint: str = ""  # a saved model's folder: taken as it is, not trained
  image_shape: tuple[int, ...] = ()  # (height, width, channels); (): that of the data
  schedule: Mapping[str, Any] = _section(**defaults_of(linear_schedule, 0))
  trained_on: str = "members"  # or "reference"

  def __post_init__(self):
    super().__post_init__()
    check_choice("trained_on", self.trained_on, ("members", "reference"))
    shape = self.image_shape
    if shape and not (len(shape) == 3 and all(type(s) is int and s > 0 for s in shape)):
      raise ValueError(
        f"image_shape is {shape}; expected (height, width, channels), or () for that of the "
        "data."
      )

  @property
  def settings(self) -> DenoiserSettings:
    """How it is trained."""
    names = [field.name for field in dataclasses.fields(DenoiserSettings)]
    return DenoiserSettings(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Purify:
  """How images are re-generated, and what is answered: see `reconstruct` and `POLICIES`."""

  num_candidates: int = _CANDIDATES["num_candidates"]
  step: int = _SAMPLER["step"]
  num_ddim_steps: int = _SAMPLER["num_ddim_steps"]
  clip: bool = _SAMPLER["clip"]
  to_clean: bool = _SAMPLER["to_clean"]
  respacing: str = ""  # "ddim5": steps are counted among 5 of the schedule's
  dtype: str = ""  # of the diffusion model here; "" as it was trained
  # Names of defense.policy.POLICIES, or module:function; undefended is always the first.
  policies: tuple[str, ...] = ("scenario_1", "scenario_2", "scenario_3", "average")

  def __post_init__(self):
    check_choice("dtype", self.dtype, DTYPES)


@dataclasses.dataclass(frozen=True)
class Output:
  """What is done to the answers, after Diffence."""

  defense: str = "none"  # a name of defense.output.OUTPUT_DEFENSES, or module:function


@dataclasses.dataclass(frozen=True)
class Samples:
  """Images of the diffusion model, to look at."""

  num_images: int = 16
  num_reconstructions: int = 4
  num_ddim_steps: int = _SAMPLE["num_ddim_steps"]

  def __post_init__(self):
    check_whole("num_images", self.num_images, 1)
    check_whole("num_reconstructions", self.num_reconstructions, 1)
    check_whole("num_ddim_steps", self.num_ddim_steps, 1)


@dataclasses.dataclass(frozen=True)
class Shadow:
  """The shadow models, and how they and the target are asked."""

  num_models: int = 0  # even; 0 for an audit without shadow models
  num_canaries: int = 0  # mislabelled reference samples, for the worst case
  augmentation: str = "none"  # flip, shifts or flip_shifts: more queries an image
  queries: tuple[int, ...] = (1,)  # how often the attacker asks the same, such as (1, 4, 16)
  num_recorded: int | None = None  # candidates; None: what purify has
  near_duplicates: bool = False  # also ask about near-duplicates instead of the same
  num_resamples: int = 1000  # of the bootstrap over models
  main_attack: str = "lira_online"  # of figures, single examples and bounds on epsilon

  def __post_init__(self):
    num, queries = self.num_models, self.queries
    if num < 0 or num % 2 or num in (2, 4):
      raise ValueError(f"num_models is {num}; expected 0, or an even number from 6 on.")
    check_whole("num_canaries", self.num_canaries, 0)
    check_choice("augmentation", self.augmentation, KINDS)
    rising = all(type(k) is int and k >= 1 for k in queries)
    if not rising or sorted({1, *queries}) != list(queries):
      raise ValueError(
        f"queries is {queries}; expected rising numbers of queries from 1, such as (1, 4)."
      )
    if self.num_recorded is not None:
      check_whole("num_recorded", self.num_recorded, 1)
    check_whole("num_resamples", self.num_resamples, 100)


@dataclasses.dataclass(frozen=True)
class Audit:
  """Which attacks are run, and what they are judged on."""

  protocol: str = PROTOCOLS[0]  # or "paper": known and target samples pooled
  # Names of attacks.ATTACKS, or module:function. What an attack needs and the experiment has
  # not, such as shadow models, leaves it out.
  attacks: tuple[str, ...] = tuple(ATTACKS.known)
  num_label_only: int = 0  # images of each group for attacks that ask many times

  def __post_init__(self):
    check_choice("protocol", self.protocol, PROTOCOLS)
    check_whole("num_label_only", self.num_label_only, 0)


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings of an experiment."""

  name: str = ""
  variant: str = ""
  seed: int = 0
  data: Data = Data()
  classifier: Classifier = Classifier()
  diffusion: Diffusion = Diffusion()
  purify: Purify = Purify()
  output: Output = Output()
  samples: Samples = Samples()
  shadow: Shadow = Shadow()
  audit: Audit = Audit()
  # Name to options, for what `classifier.defense` and `output.defense` name; likewise for
  # `purify.policies` and `audit.attacks`. Those of a user's own stand under their function's
  # name.
  defenses: Mapping[str, Mapping[str, Any]] = _section()
  policies: Mapping[str, Mapping[str, Any]] = _section()
  attacks: Mapping[str, Mapping[str, Any]] = _section()
  # Changes rounding at most, and is in no fingerprint.
  compute: Compute = dataclasses.field(default_factory=Compute)

  def __post_init__(self):
    check_whole("seed", self.seed, 0, MAX_ID)

  def options(self, kind: str, name: str) -> Mapping[str, Any]:
    """The options given to a function by its name; `kind` is one of the last sections."""
    return getattr(self, kind).get(option_key(name), {})


# Sections of options by name, and whose they are.
_BY_NAME = {
  "defenses": (DEFENSES, OUTPUT_DEFENSES),
  "policies": (POLICIES,),
  "attacks": (ATTACKS,),
}


def base_config() -> ConfigDict:
  """Every setting with its default; an experiment's config says what it changes.

  Returns:
    A locked `ConfigDict`: an unknown setting is an error, types are kept. Sections whose keys
    belong to a source, a model or a function are open.
  """
  config = _config_of(Settings)
  for kind, registries in _BY_NAME.items():
    for registry in registries:
      for name in registry.known:
        options = options_of(registry.find(name), registry.num_args)
        if options:
          config[kind][name] = ConfigDict(
            {key: _entry(own.annotation, own.default) for key, own in options.items()}
          )
  config.lock()
  for path in ("data.options", "classifier.fields", "diffusion.fields", *_BY_NAME):
    open_section = config
    for key in path.split("."):
      open_section = open_section[key]
    open_section.unlock()
  return config


def validate(config: ConfigDict | Mapping[str, Any]) -> Settings:
  """Checks the settings and makes them typed.

  Args:
    config: a config as `base_config` makes them, or a mapping of what differs from it.

  Returns:
    All settings, immutable.

  Raises:
    ValueError: an unknown setting (names the nearest), a wrong type, a value out of range.
  """
  given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
  settings = _typed(Settings, _with_options(given), "")
  if settings.shadow.num_recorded is not None:
    least = settings.purify.num_candidates
    if settings.shadow.num_recorded < least:
      raise ValueError(
        f"shadow.num_recorded is {settings.shadow.num_recorded}; expected at least "
        f"purify.num_candidates, {least}."
      )
  _check_names(settings)
  return settings


def as_json(settings: Settings) -> dict[str, Any]:
  """The settings as plain dicts, lists, strings and numbers."""
  return to_plain(settings)


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
  """Path and value of every setting of nested ones."""
  for key, value in settings.items():
    where = f"{path}.{key}" if path else key
    if isinstance(value, Mapping) and value:
      yield from leaves(value, where)
    else:
      yield where, value


def _with_options(given: Mapping[str, Any]) -> dict[str, Any]:
  """What is given, with the defaults of all options of our functions."""
  filled = dict(given)
  for kind, registries in _BY_NAME.items():
    options = dict(given.get(kind, {})) if isinstance(given.get(kind, {}), Mapping) else None
    if options is None:
      continue
    for registry in registries:
      for name in registry.known:
        own = options.get(name, {})
        if isinstance(own, Mapping) and (defaults := registry.defaults(name)):
          options[name] = {**defaults, **own}
    filled[kind] = options
  return filled


def _config_of(kind) -> ConfigDict:
  config = ConfigDict()
  types = typing.get_type_hints(kind)
  for field in dataclasses.fields(kind):
    if dataclasses.is_dataclass(types[field.name]):
      config[field.name] = _config_of(types[field.name])
    elif field.default is dataclasses.MISSING:
      config[field.name] = ConfigDict(field.default_factory())
    else:
      config[field.name] = _entry(types[field.name], field.default)
  return config


def _entry(annotation, default):
  """A default, or where that is None a placeholder for a value of the annotated type."""
  if default is not None:
    return default
  kinds = [own for own in typing.get_args(annotation) if own is not type(None)]
  return config_dict.placeholder(kinds[0] if kinds else object)


def _typed(kind, given: Mapping[str, Any], path: str):
  """A section of settings as its dataclass, with the defaults of what is not given."""
  types, values = typing.get_type_hints(kind), {}
  for key, value in given.items():
    where = f"{path}.{key}" if path else str(key)
    if key not in types:
      raise ValueError(f"There is no setting {where!r}{nearest(str(key), types)}")
    if isinstance(value, Mapping) != _is_section(types[key]):
      expected = "a section of settings" if _is_section(types[key]) else "a single value"
      raise ValueError(f"{where} is {value!r}; expected {expected}.")
    if dataclasses.is_dataclass(types[key]):
      values[key] = _typed(types[key], value, where)
    elif where == "diffusion.schedule":
      values[key] = _options(linear_schedule, value, where)
    else:
      values[key] = check_type(where, value, types[key])
  with section(path, types) if path else contextlib.nullcontext():
    return kind(**values)


def _is_section(annotation) -> bool:
  origin = typing.get_origin(annotation) or annotation
  return dataclasses.is_dataclass(annotation) or origin is Mapping


def _options(function, given: Mapping[str, Any], path: str) -> dict[str, Any]:
  """A section of the options of one function, with its defaults."""
  known = options_of(function, 0)
  for key in given:
    if key not in known:
      raise ValueError(f"There is no setting {f'{path}.{key}'!r}{nearest(str(key), known)}")
  typed = {
    key: check_type(f"{path}.{key}", value, known[key].annotation)
    for key, value in given.items()
  }
  return {**defaults_of(function, 0), **typed}


def _check_names(settings: Settings) -> None:
  """Raises ValueError where options are given to what is not there, or names clash."""
  chosen = {
    "defenses": (settings.classifier.defense, settings.output.defense),
    "policies": settings.purify.policies,
    "attacks": settings.audit.attacks,
  }
  for kind, registries in _BY_NAME.items():
    ours = [name for registry in registries for name in registry.known]
    own = [option_key(name) for name in chosen[kind] if ":" in name]
    for function in own:
      if function in ours:
        raise ValueError(
          f"{kind}: a function of your own is called {function!r}, as one of ours is."
        )
    for name, options in getattr(settings, kind).items():
      if name not in ours + own:
        raise ValueError(
          f"{kind} has options of {name!r}, which is none{nearest(name, ours + own)}"
        )
      if not isinstance(options, Mapping):
        raise ValueError(f"{kind}.{name} is {options!r}; expected a section of options.")
