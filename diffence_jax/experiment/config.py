"""A config as its file makes it, and as the typed settings that it becomes."""

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.audit.canaries import CANARIES
from diffence_jax.audit.typed import to_plain
from diffence_jax.checks import check_plain, check_type, shown
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES
from diffence_jax.diffusion import linear_schedule
from diffence_jax.experiment.sections import Settings
from diffence_jax.named import defaults_of, nearest, option_key, options_of, section
from diffence_jax.training.registry import DEFENSES

# Sections of options by name, and whose they are.
_BY_NAME = {
  "defenses": (DEFENSES, OUTPUT_DEFENSES),
  "policies": (POLICIES,),
  "attacks": (ATTACKS,),
  "canaries": (CANARIES,),
}

# Sections of the options of one function or class.
_OPEN = (
  "data.options",
  "classifier.fields",
  "classifier.train_options",
  "classifier.predictor_options",
  "diffusion.fields",
)


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
            {key: _entry(option.annotation, option.default) for key, option in options.items()}
          )
  config.lock()
  for path in (*_OPEN, *_BY_NAME):
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
  if not isinstance(config, ConfigDict | Mapping):
    raise ValueError(f"The config is {shown(config)}; expected a ConfigDict or a mapping.")
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
        of_name = options.get(name, {})
        if isinstance(of_name, Mapping) and (defaults := registry.defaults(name)):
          options[name] = {**defaults, **of_name}
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
  kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
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
      raise ValueError(f"{where} is {shown(value)}; expected {expected}.")
    if dataclasses.is_dataclass(types[key]):
      values[key] = _typed(types[key], value, where)
    elif where == "diffusion.schedule":
      values[key] = _options(linear_schedule, value, where)
    else:
      values[key] = check_type(where, value, types[key])
      check_plain(where, values[key])
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
  options = {**defaults_of(function, 0), **typed}
  with section(path, options):
    function.check_options(**options)
  return options


def _check_names(settings: Settings) -> None:
  """Raises ValueError where options are given to what is not there, or names clash."""
  chosen = {
    "defenses": (settings.classifier.defense, settings.output.defense),
    "policies": settings.purify.policies,
    "attacks": settings.audit.attacks,
    "canaries": settings.shadow.canaries,
  }
  for kind, registries in _BY_NAME.items():
    ours = [name for registry in registries for name in registry.known]
    theirs = [option_key(name) for name in chosen[kind] if ":" in name]
    for function in theirs:
      if function in ours:
        raise ValueError(
          f"{kind}: a function of your own is called {function!r}, as one of ours is."
        )
      if theirs.count(function) > 1 and kind != "defenses":
        raise ValueError(
          f"{kind}: two functions of your own are called {function!r}; options and reports "
          "would take one for the other. Rename one."
        )
    for name, options in getattr(settings, kind).items():
      if name not in ours + theirs:
        raise ValueError(
          f"{kind} has options of {name!r}, and there is no such function"
          f"{nearest(name, ours + theirs)}"
        )
      if not isinstance(options, Mapping):
        raise ValueError(f"{kind}.{name} is {options!r}; expected a section of options.")
      for registry in registries:
        if name in registry.known:
          registry.choose(name, options)
