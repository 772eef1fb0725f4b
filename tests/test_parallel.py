"""Eight devices give what one gives; a process of its own has its own devices."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffence_jax.defense import POLICIES

DEFENSES = ("advreg", "selena", "dpsgd", "relaxloss", "label_smoothing")
SCRIPT = Path(__file__).with_name("parallel_script.py")


def start_on(num_devices, folder):
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
    f"--xla_force_host_platform_device_count={num_devices}",
  }
  return subprocess.Popen(
    [sys.executable, SCRIPT, str(folder), str(num_devices)], env=environment
  )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  folders = {n: tmp_path_factory.mktemp(f"devices{n}") for n in (1, 8)}
  # Both at once, as each leaves a core idle now and then.
  runs = [start_on(num_devices, folder) for num_devices, folder in folders.items()]
  assert [run.wait() for run in runs] == [0, 0]
  loaded = {}
  for num_devices, folder in folders.items():
    names = (
      "raw",
      "candidates",
      "losses",
      "protected",
      "early",
      "ensemble",
      "several",
      "denoiser",
      "divided",
    )
    names += DEFENSES
    loaded[num_devices] = {name: np.load(folder / f"{name}.npy") for name in names}
    with np.load(folder / "policies.npz") as policies:
      loaded[num_devices]["policies"] = dict(policies)
  return loaded


@pytest.mark.parametrize("name", ["raw", "candidates", "protected", "early"])
def test_recorded_queries_do_not_depend_on_the_devices(results, name):
  np.testing.assert_allclose(results[8][name], results[1][name], atol=1e-4)


def test_early_exit_answers_as_drawing_all_candidates_does(results):
  np.testing.assert_allclose(results[8]["early"], results[8]["protected"], atol=1e-4)


@pytest.mark.parametrize("name", POLICIES.known)
def test_a_policy_does_not_depend_on_the_devices_nor_on_early_exit(results, name):
  one, eight = (results[num]["policies"] for num in (1, 8))
  np.testing.assert_allclose(eight[name], one[name], atol=1e-4)
  early = f"{name}_early"
  assert (early in one) == (early in eight) == name.startswith("scenario_")
  for answers in (one, eight):
    np.testing.assert_allclose(answers.get(early, answers[name]), answers[name], atol=1e-4)


def test_policies_answer_differently(results):
  """Or else it would be no feat that they do not depend on the devices."""
  answers = results[1]["policies"]
  assert all(
    np.any(answers[name] != answers["undefended"]) for name in answers if name != "undefended"
  )
  distinct = {answers[name].tobytes() for name in POLICIES.known}
  assert len(distinct) >= 5


def test_training_does_not_depend_on_the_devices(results):
  np.testing.assert_allclose(results[8]["losses"], results[1]["losses"], rtol=1e-3)


def test_the_diffusion_model_does_not_depend_on_the_devices(results):
  np.testing.assert_allclose(results[8]["denoiser"], results[1]["denoiser"], atol=1e-5)


def test_a_divided_diffusion_model_is_the_whole_one(results):
  for num_devices in (1, 8):
    np.testing.assert_allclose(
      results[num_devices]["divided"], results[1]["denoiser"], atol=1e-5
    )


def test_several_steps_a_call_do_not_depend_on_the_devices(results):
  np.testing.assert_allclose(results[8]["several"], results[1]["several"], atol=1e-4)


def test_shadow_models_do_not_depend_on_the_devices_nor_on_how_many_at_once(results):
  """One device trains two at once, eight devices one each."""
  np.testing.assert_allclose(results[8]["ensemble"], results[1]["ensemble"], atol=2e-3)


@pytest.mark.parametrize("name", DEFENSES)
def test_a_training_time_defense_does_not_depend_on_the_devices(results, name):
  """The target, its batches split; and three models of an ensemble, each on one device."""
  one, eight = results[1][name], results[8][name]
  assert np.ptp(one, axis=0).max() > 0.05  # these are four different models
  np.testing.assert_allclose(eight, one, atol=5e-3)
