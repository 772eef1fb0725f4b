"""Trains the target of SELENA in a workdir that others may share; for test_teachers.py."""

import os
import signal
import sys

from diffence_jax import parallel
from diffence_jax.experiment.claims import Claims
from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.run import compute, open_store
from diffence_jax.experiment.stages.teachers import Teacher
from diffence_jax.experiment.store import Store

TEACHERS = 6
STAGES = ("split", "classifier")


def experiment():
  """Six small teachers and their small pupil."""
  config = base_config()
  config.data.source = "digits"
  config.data.num_members, config.data.num_nonmembers = 64, 40
  config.classifier.model = "small_resnet"
  config.classifier.fields.update(width=4, stages=(1,))
  config.classifier.epochs, config.classifier.batch_size = 2, 16
  config.classifier.defense = "selena"
  config.defenses.selena.num_teachers = TEACHERS
  config.defenses.selena.num_left_out = 2
  return plan(config)


def kill_at(number):
  """Has this process die, as by `kill -9`, when it comes to keep its teacher of a number."""
  keep, kept = Store.compute, []

  def dying(store, stage, *args, **settings):
    kept.extend([stage] if isinstance(stage, Teacher) else [])
    if len(kept) == number:
      os.kill(os.getpid(), signal.SIGKILL)
    return keep(store, stage, *args, **settings)

  Store.compute = dying


if __name__ == "__main__":
  workdir, *how = sys.argv[1:]
  if how[:1] == ["--die"]:
    kill_at(int(how[1]))
  elif how:
    parallel.connect(how[0])
  store = open_store(workdir)
  if parallel.is_first():
    store.prepare()
  compute(experiment(), store, STAGES, Claims())
