"""The stages of the optimised queries, of networks that have learnt nothing."""

import contextlib
import io
import re

import jax
import numpy as np
import pytest

from diffence_jax import models, progress
from diffence_jax.attacks import optimised_queries as attack
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.compiling import compiled_quickly
from diffence_jax.experiment.claims import Alone, Claims
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.sharing import compute_stage
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages import optimised_queries as stages
from diffence_jax.experiment.stages.classifier import TrainedClassifier
from diffence_jax.experiment.stages.diffusion import TrainedDiffusion
from diffence_jax.experiment.stages.queries import Asked
from diffence_jax.experiment.stages.shadow_models import ShadowModels
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound

NUM, MODELS = 2, 8
CONFIG = {
  "data": {"num_members": 16, "num_nonmembers": 16},
  "classifier": {"model": "own_networks:Flat"},
  "diffusion": {"model": "own_networks:Blur"},
  "purify": {"num_candidates": 2},
  "shadow": {"num_models": MODELS},
  "audit": {"num_optimised": NUM, "attacks": ("lira_online",)},
  "optimised": {"num_models": 2, "num_steps": 2, "num_draws": 2, "radius": 5},
}


def planned(**changes):
  merged = {
    name: {**CONFIG.get(name, {}), **changes.get(name, {})} for name in {*CONFIG, *changes}
  }
  return plan(merged)


@pytest.fixture(scope="module")
def networks():
  """The stage of the queries, whose networks are as they are drawn, two samples a part."""
  stage = planned().optimised.asked
  shape, drawn = stage.samples.image_shape, stage.classifier.bound
  one = models.init(drawn.module, jax.random.key(0), shape)
  several = jax.tree.map(
    lambda leaf: np.stack([leaf * (1 + 0.1 * i) for i in range(MODELS)]), one
  )
  denoiser = stage.diffusion.bound
  noise = models.init(denoiser.module, jax.random.key(1), shape)
  with pytest.MonkeyPatch.context() as patch, compiled_quickly():
    patch.setattr(TrainedClassifier, "load", lambda *_: Bound(drawn.module, one))
    patch.setattr(TrainedDiffusion, "load", lambda *_: Bound(denoiser.module, noise))
    patch.setattr(ShadowModels, "load_stacked", lambda *_: Bound(drawn.module, several))
    patch.setattr(
      ShadowModels,
      "membership",
      lambda *_: membership_matrix(MODELS, len(stage.shadow.pool), 0),
    )
    patch.setattr(progress, "_PATIENCE", 0.0)
    for module in (attack, stages):
      patch.setattr(module, "TOGETHER", NUM)
    yield stage


@pytest.fixture(scope="module")
def computed(networks, tmp_path_factory):
  """The stage, computed in two parts, where, and what was said."""
  store = Store(tmp_path_factory.mktemp("optimised"))
  with contextlib.redirect_stderr(io.StringIO()) as said:
    compute_stage("optimised", networks, store, Compute(), Alone())
  return networks, store, said.getvalue()


def test_queries_lie_about_their_samples(computed):
  stage, store, _ = computed
  queries, images = stage.load_queries(store).astype(int), np.asarray(stage.samples.images)
  assert queries.shape == (2, 2 * NUM, *stage.samples.image_shape)
  distance = np.abs(queries - images)
  assert 0 < distance.max() <= 5
  assert np.any(queries[0] != queries[1])


def test_the_target_and_the_other_models_answer_every_query(computed):
  stage, store, _ = computed
  for kind in (0, 1):
    target = stage.load_answers(store, kind)
    assert target.raw.shape == (2 * NUM, 1, 10) and target.candidates.shape == (
      2 * NUM,
      1,
      2,
      10,
    )
    for model in range(MODELS - 2):
      answers = stage.load_answers(store, kind, model)
      assert answers.candidates.shape == target.candidates.shape
  # The classifier's own weights are those of the first model, the noise is not the same.
  with pytest.raises(AssertionError):
    np.testing.assert_allclose(
      stage.load_answers(store, 0, 0).candidates, stage.load_answers(store, 0).candidates
    )


def test_the_records_are_those_of_all_queries_at_once(computed, tmp_path):
  stage, store, _ = computed
  assert len(stage.items(Compute())) == 2
  queries = np.concatenate(stage.load_queries(store))
  asked = Asked(stage.classifier.load(store), queries.__getitem__, np.arange(len(queries)))
  stage.record(tmp_path, store, Compute(), asked)
  for name in ("raw", "candidates"):
    joined = np.load(store.open(stage) / "target" / f"{name}.npy")
    assert joined.shape == (len(queries), *joined.shape[1:]) and np.ptp(joined) > 0.0
    np.testing.assert_allclose(joined, np.load(tmp_path / f"{name}.npy"), rtol=1e-5, atol=1e-6)


def test_several_processes_make_what_one_makes(computed, networks, tmp_path):
  """The second comes when the first has made one part."""
  parts, first, second = networks.items(Compute()), Store(tmp_path), Store(tmp_path)
  networks.item_worker(first, Compute())(parts[1:])
  compute_stage("optimised", networks, second, Compute(), Claims())
  alone = computed[1].open(networks)
  files = sorted(path.relative_to(alone) for path in alone.rglob("*.npy"))
  assert len(files) == 5
  for file in files:
    assert (second.open(networks) / file).read_bytes() == (alone / file).read_bytes()


def test_how_far_it_is_is_said_of_either_kind_of_query(computed):
  # A line a step but the last one, here with no patience.
  lines = re.findall(r"(?m)^(.*): (\d+ of \d+) steps, 50%, about .* left$", computed[2])
  of_a_part = [("optimised queries", "1 of 2"), ("queries through re-generations", "1 of 2")]
  assert lines == 2 * of_a_part
  assert "optimised: 1 of 2 parts, 50%" in computed[2]


def test_targets_of_both_sides_are_asked_about():
  experiment = planned()
  stage, pool = experiment.optimised.asked, experiment.shadow_audit.pool
  chosen = pool.take(np.array(stage.rows))
  assert (
    not chosen.is_known.any() and chosen.is_member.sum() == NUM == (~chosen.is_member).sum()
  )
  np.testing.assert_array_equal(chosen.ids, stage.samples.ids)
  assert list(experiment.stages).index("optimised") < list(experiment.stages).index("audit")
  assert "128 gradients" not in stage.cost() and "8 queries: 16 gradients" in stage.cost()


def test_it_is_opt_in_and_leaves_the_other_stages_as_they_are():
  with_it, without = planned(), planned(audit={"num_optimised": 0})
  assert without.optimised is None and "optimised" not in without.stages
  for name, stage in without.stages.items():
    assert with_it.stages[name].fingerprint == stage.fingerprint


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"shadow": {"num_models": 0}}, "there are no shadow models of JAX"),
    ({"shadow": {"num_models": 6}}, "which leaves 4 that answer; expected at least 6"),
    ({"optimised": {"num_models": 3}}, "optimised.num_models is 3; expected an even number"),
    (
      {"diffusion": {"model": "own_networks:PerClass", "fields": {"num_classes": 10}}},
      "a class-conditional one re-generates under a label",
    ),
  ],
)
def test_what_cannot_be_optimised_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    planned(**changes)
