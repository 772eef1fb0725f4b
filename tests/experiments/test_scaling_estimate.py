"""The estimate of the paper's run counts as a count by hand does, and shares work as we do."""

from pathlib import Path

import pytest

from diffence_jax.models import DDPMUNet

HERE = Path(__file__).parents[2]


@pytest.fixture
def program(monkeypatch):
  monkeypatch.syspath_prepend(str(HERE / "experiments"))
  import scaling_estimate

  return scaling_estimate


def test_the_papers_network_has_the_operations_that_a_count_by_hand_has(program):
  from network_flops import forward_flops

  counted = program.paper_programs()["re-generations"].flops() / program._CHUNK
  assert counted == pytest.approx(forward_flops(DDPMUNet(out_channels=3), 32).total(), rel=0.02)


def test_a_step_is_some_three_forward_passes_and_records_grow_with_models(program):
  programs = program.paper_programs(small=True)
  forward = 128 * programs["re-generations"].flops() / program._CHUNK
  assert 2.5 * forward < programs["diffusion step"].flops() < 4.5 * forward
  of = {n: {s.name: s for s in program.stages_of(programs, n, 100)} for n in (6, 12)}
  assert of[12]["shadow models"].items == 2 * of[6]["shadow models"].items
  name = "the shadow models' record"
  # 100 images, 30 candidates and the image itself, 10 classes, float32.
  assert of[12][name].written == 12 * 100 * 31 * 10 * 4 == 2 * of[6][name].written
  answered = of[12][name].flops - of[6][name].flops
  each = programs["answers"].flops() / program._CHUNK
  assert answered == pytest.approx(6 * 100 * 31 * each)


@pytest.mark.parametrize("devices, rounds", [(1, 128), (8, 16), (64, 2), (3, 43)])
def test_models_are_trained_in_rounds_of_what_a_process_claims(program, devices, rounds):
  models = program.Stage("shadow models", 2.0, 128, False, 0)
  assert models.seconds(devices, rate=1.0) == 2.0 * rounds
  one = program.Stage("record", 128.0, 1, True, 0)
  assert one.seconds(devices, rate=1.0) == pytest.approx(128.0 / devices)
