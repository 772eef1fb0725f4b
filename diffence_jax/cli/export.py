"""The command `diffence export`: the protected classifier of a finished run, as one file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from diffence_jax.cli.parsing import asks_for_help, parse

_HELP = """\
Writes the protected classifier of a finished run as one file, which JAX runs by itself.

  diffence export --config=FILE[:VARIANT] --workdir=FOLDER --output=FILE [--policy=NAME]

  --config, --workdir    those of the run, with the same --config.SETTING=VALUE, if any
  --output=FILE          the program, replaced if it is there
  --policy=scenario_1    what is answered: one of the run's purify.policies, as it was fitted
  --help                 this text

Where it is to run, pip install jax flatbuffers, and

  from pathlib import Path
  import jax
  from jax import export
  program = export.deserialize(bytearray(Path("FILE").read_bytes()))
  logits = jax.jit(program.call)(jax.random.key_data(jax.random.key(0)), images)

with images float32 [N,H,W,C] in [0, 1], and a new key for every call. The file holds the
weights of both networks and the interval, and no sample.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    OSError: the run is not finished, or there is no folder for the file.
    ValueError: a flag or a setting is not right, or the run's defense cannot be exported.
    ArtifactError: something in the workdir is damaged.
  """
  if asks_for_help(argv):
    print(_HELP, end="")
    return
  values = parse(argv, _define_flags, ("config", "workdir", "output"))
  output = Path(values.output).expanduser()
  # Only now: importing jax takes a second.
  from diffence_jax.experiment.plan import plan
  from diffence_jax.experiment.run import open_store
  from diffence_jax.interop import export

  experiment = plan(values.config)
  name = choose_policy(experiment, values.policy)
  predict = protected_predictor(experiment, open_store(values.workdir), name)
  shape = experiment.dataset.images.shape[1:]
  export(output, predict, shape)
  size = output.stat().st_size / 2**20
  print(
    f"{output}: {size:.1f} MiB, {name}, for (key data u32[2], images "
    f"f32[N,{','.join(map(str, shape))}]); see diffence export --help.",
    file=sys.stderr,
  )


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("output", None, "The program.", flag_values=values)
  flags.DEFINE_string("policy", None, "What is answered.", flag_values=values)


def choose_policy(experiment: Any, policy: str | None) -> str:
  """The name of a policy of the experiment; ValueError, with the nearest, if there is none."""
  from diffence_jax.named import nearest

  known = [predictor.policy.name for predictor in experiment.audit.predictors[1:]]
  policy = known[0] if policy is None and known else policy
  if policy not in known:
    raise ValueError(f"The run has no policy {policy!r}{nearest(str(policy), known)}")
  return policy


def protected_predictor(experiment: Any, store: Any, policy: str) -> Any:
  """The classifier of a finished run, protected as its report says.

  Args:
    experiment: as `plan` makes it.
    store: as `open_store` makes it.
    policy: one of the run's, fitted as it was there.

  Returns:
    A predictor, as `defense.protect` returns it.

  Raises:
    FileNotFoundError: the run is not finished.
    ValueError: the run has a defense of the answers, which is none of JAX.
    ArtifactError: an artifact is damaged.
  """
  from diffence_jax import models
  from diffence_jax.defense import protect

  settings, purification = experiment.settings, experiment.purification
  if settings.output.defense != "none":
    raise ValueError(
      f"output.defense is {settings.output.defense!r}, which runs on the host and cannot be "
      "exported; choose --config.output.defense=none."
    )
  for stage in (experiment.classifier, experiment.diffusion, experiment.audit):
    store.open(stage)
  fitted = experiment.audit.load_predictors(store)
  chosen = next(
    defended.policy for defended in fitted if defended.predictor.policy.name == policy
  )
  return protect(
    models.predictor(*experiment.classifier.load(store)),
    models.denoiser(*purification.network(experiment.diffusion.load(store))),
    purification.sampler_schedule(),
    num_candidates=settings.purify.num_candidates,
    chunk_size=settings.compute.chunk_size,
    policy=chosen,
    **purification.sampler,
  )
