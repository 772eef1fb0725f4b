"""The command `diffence export`: the protected classifier of a finished run, as one file."""

import json
import sys
from pathlib import Path
from typing import Any

HELP = """\
Writes the protected classifier of a finished run as one file, which JAX runs by itself.

  diffence export --config=FILE[:VARIANT] --workdir=FOLDER --output=FILE [--scenario=1|2|3]

  --config, --workdir    those of the run, with the same --config.SETTING=VALUE, if any
  --output=FILE          the program, replaced if it is there
  --scenario=1           what the interval is fitted to: 1, members and non-members; 2, members;
                         3, nothing
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


def run(config: Any, workdir: str, output: str, scenario: str | None) -> None:
  """Exports the protected classifier of a finished run.

  Args:
    config: of the run, as `pipeline.run` takes it.
    workdir: of the run.
    output: the file.
    scenario: "1", "2" or "3"; None for "1".

  Raises:
    FileNotFoundError: the run is not finished, or there is no folder for the file.
    ValueError: a setting is not right, or the run's defense cannot be exported.
    ArtifactError: something in the workdir is damaged.
  """
  scenario = "1" if scenario is None else scenario
  if scenario not in ("1", "2", "3"):
    raise ValueError(f"--scenario is {scenario!r}; expected 1, 2 or 3.")
  # Only now: importing jax takes a second.
  from diffence_jax.experiment import run as pipeline
  from diffence_jax.interop import export

  experiment = pipeline.plan(config)
  predict = protected_predictor(experiment, pipeline.open_store(workdir), int(scenario))
  shape = experiment.dataset.images.shape[1:]
  export(output, predict, shape)
  size = Path(output).stat().st_size / 2**20
  print(
    f"{output}: {size:.1f} MiB, scenario {scenario}, for (key data u32[2], images "
    f"f32[N,{','.join(map(str, shape))}]); see diffence export --help.",
    file=sys.stderr,
  )


def protected_predictor(experiment: Any, store: Any, scenario: int) -> Any:
  """The classifier of a finished run, protected as its report says.

  Args:
    experiment: as `pipeline.plan` makes it.
    store: as `pipeline.open_store` makes it.
    scenario: 1, 2 or 3; its interval is the one that the run fitted.

  Returns:
    A predictor, as `defense.protect` returns it.

  Raises:
    FileNotFoundError: the run is not finished.
    ValueError: the run has a defense of the answers, which is none of JAX.
    ArtifactError: an artifact is damaged.
  """
  from diffence_jax import models
  from diffence_jax.defense import protect
  from diffence_jax.experiment.stages import models as stages

  config = experiment.config
  if config.output.defense != "none":
    raise ValueError(
      f"output.defense is {config.output.defense!r}, which runs on the host and cannot be "
      "exported; choose --config.output.defense=none."
    )
  for name in ("classifier", "diffusion", "audit"):
    stage = experiment.stages[name]
    if not store.is_done(stage):
      raise FileNotFoundError(
        f"{store.workdir} has no {name} of this config ({stage.fingerprint}); first run "
        "diffence with the same --config and --workdir."
      )
    store.verify(stage)
  rows = json.loads((store.path(experiment.stages["audit"]) / "predictors.json").read_text())
  interval = next(row["interval"] for row in rows if row["name"] == f"scenario {scenario}")
  schedule, sampler = stages.sampler_of(config)
  return protect(
    models.predictor(*stages.load_classifier(experiment, store)),
    models.denoiser(*stages.load_purifier(experiment, store)),
    schedule,
    num_candidates=config.purify.num_candidates,
    chunk_size=config.purify.chunk_size,
    interval=interval,
    **sampler,
  )
