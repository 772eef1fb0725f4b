"""The neural-network attack: its parts in closed form, leaks, and who influences whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from attacks.grouped import GROUPS, by_group, view_of

from diffence_jax import attacks, metrics, rng
from diffence_jax.attacks import ATTACKS, nn, run_attack
from diffence_jax.attacks.nn import AttackNetwork, Group, network_inputs, train_nn_attack


def answers(seed, num, signal, num_classes=4):
  """Logits whose true class is raised by `signal`, one number or one for every class."""
  rng = np.random.default_rng(seed)
  logits, labels = rng.normal(0, 1, (num, num_classes)), rng.integers(0, num_classes, num)
  logits[np.arange(num), labels] += np.broadcast_to(signal, num_classes)[labels]
  return Group(logits.astype(np.float32), labels)


def groups(member_signal, signal, num=200, seed=0):
  """Known and target members, then known and target non-members."""
  signals = (member_signal, member_signal, signal, signal)
  return [answers(seed + i, num, own) for i, own in enumerate(signals)]


def nn_scores(groups, *, seed=0, name="p", epochs=200, published=False):
  """The scores of the attack on a predictor of this name, group by group."""
  choice, view = ATTACKS.choose("nn", {"epochs": epochs}), view_of(groups, seed=seed, name=name)
  return by_group(run_attack(choice, view, published=published), groups)


def target_roc(scores):
  return metrics.roc(scores["target_members"], scores["target_nonmembers"])


def slow_forward(params, inputs):
  """The network in NumPy and float64, layer by layer in the order of their creation."""
  layers = iter([params[f"Dense_{i}"] for i in range(len(params))])

  def branch(x, num):
    for _ in range(num):
      layer = next(layers)
      x = np.maximum(x @ np.float64(layer["kernel"]) + np.float64(layer["bias"]), 0)
    return x

  branches = [branch(x, num) for x, num in zip(inputs, (3, 2, 2), strict=True)]
  x, layer = branch(np.concatenate(branches, axis=1), 3), next(layers)
  return (x @ np.float64(layer["kernel"]) + np.float64(layer["bias"]))[:, 0]


@pytest.mark.parametrize("num_classes", [4, 10])
def test_the_network_is_the_papers(num_classes):
  inputs = network_inputs(answers(0, 7, 2.0, num_classes))
  params = nn._init(jax.random.key(0), num_classes)
  k = num_classes
  sizes = [(k, 1024), (1024, 512), (512, 64), (k, 128), (128, 64), (1, k), (k, 64)]
  sizes += [(192, 256), (256, 128), (128, 64), (64, 1)]
  assert [params[f"Dense_{i}"]["kernel"].shape for i in range(len(params))] == sizes
  assert sum(p.size for p in jax.tree.leaves(params)) == sum((a + 1) * b for a, b in sizes)
  # Biases and larger weights, so that every layer counts.
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: np.float32(rng.normal(0, 0.1, p.shape)), params)
  output = AttackNetwork(num_classes).apply({"params": params}, inputs)
  np.testing.assert_allclose(output, slow_forward(params, inputs), rtol=1e-3, atol=1e-4)


def test_initial_weights_are_small_gaussians_and_biases_zero():
  params = nn._init(jax.random.key(3), 10)
  kernels = [np.ravel(layer["kernel"]) for layer in params.values()]
  weights = np.concatenate(kernels)
  # Five standard errors of a standard deviation, and of a mean.
  assert abs(weights.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * len(weights))
  assert abs(weights.mean()) < 5 * 0.01 / np.sqrt(len(weights))
  # A truncated Gaussian of the same deviation has a smaller fourth moment.
  assert np.mean((weights / weights.std()) ** 4) == pytest.approx(3.0, abs=0.1)
  assert not any(np.any(layer["bias"]) for layer in params.values())


def test_inputs_are_probabilities_label_and_bounded_loss():
  logits = np.array([[1.0, 2.0, 0.5], [0.0, 500.0, 0.0], [3.0, -np.inf, 0.0]])
  labels = np.array([1, 0, 1])
  probabilities, one_hot, loss = network_inputs(Group(logits, labels))
  np.testing.assert_allclose(
    probabilities, scipy.special.softmax(logits, axis=-1), rtol=1e-6, atol=1e-30
  )
  np.testing.assert_array_equal(one_hot, [[0, 1, 0], [1, 0, 0], [0, 1, 0]])
  np.testing.assert_allclose(
    loss, [[-np.log(probabilities[0, 1])], [nn.MAX_LOSS], [nn.MAX_LOSS]], rtol=1e-6
  )
  assert {a.dtype for a in (probabilities, one_hot, loss)} == {np.dtype(np.float32)}


def test_the_learning_rate_falls_to_a_tenth_at_epoch_100():
  rate = nn.learning_rate(steps_per_epoch=3)
  for step in (0, 150, 299):
    assert float(rate(step)) == pytest.approx(5e-4)
  for step in (300, 599):
    assert float(rate(step)) == pytest.approx(5e-5)


def test_the_compiled_auc_is_that_of_the_metrics():
  rng = np.random.default_rng(0)
  members, nonmembers = (rng.integers(0, 6, n).astype(np.float32) for n in (40, 23))
  expected = metrics.roc(members, nonmembers).auc
  assert float(nn._auc(jnp.asarray(members), jnp.asarray(nonmembers))) == pytest.approx(
    expected
  )


def test_a_planted_leak_is_found():
  scores = nn_scores(groups(5.0, 2.0), epochs=60)
  assert list(scores) == list(GROUPS)
  assert all(s.dtype == np.float64 and s.shape == (200,) for s in scores.values())
  assert target_roc(scores).auc > 0.8


def test_a_leak_in_label_and_probabilities_together_is_found():
  """Members of even classes are surer than non-members, those of odd classes less sure."""
  surer, less = np.array([4.0, 1.0, 4.0, 1.0]), np.array([1.0, 4.0, 1.0, 4.0])
  leaking = groups(surer, less)
  for name in ("loss", "confidence", "entropy", "modified_entropy"):
    scores = (getattr(attacks, name)(*leaking[group]) for group in (1, 3))
    assert abs(metrics.roc(*scores).auc - 0.5) < 0.15
  assert target_roc(nn_scores(leaking, epochs=100)).auc > 0.8


def test_without_a_leak_there_is_no_success():
  scores = nn_scores(groups(2.0, 2.0), epochs=40)
  # Under no leak the AUC's variance is (m + n + 1) / (12 m n): false alarms once in 1,000.
  margin = 3.3 * np.sqrt((200 + 200 + 1) / (12 * 200 * 200))
  assert abs(target_roc(scores).auc - 0.5) < margin


def test_all_follows_from_the_seed_and_the_predictor_s_name():
  g = groups(4.0, 2.0, num=40)
  first, again, other, renamed = (
    nn_scores(g, seed=seed, name=name, epochs=3)
    for seed, name in ((1, "p"), (1, "p"), (2, "p"), (1, "q"))
  )
  for name in first:
    np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first[name], other[name])
    assert not np.array_equal(first[name], renamed[name])


def test_target_samples_are_judged_one_by_one():
  g = groups(4.0, 2.0, num=40)
  scores = nn_scores(g, epochs=5)
  order = np.random.default_rng(0).permutation(40)
  known_members, members, known_nonmembers, nonmembers = g
  changed = np.array(members.logits)
  changed[1:] *= -3.0
  altered = [
    known_members,
    members._replace(logits=changed),
    known_nonmembers,
    Group(*(array[order] for array in nonmembers)),
  ]
  others = nn_scores(altered, epochs=5)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  for name in ("known_members", "known_nonmembers"):
    np.testing.assert_array_equal(others[name], scores[name])
  close(others["target_members"][0], scores["target_members"][0])
  assert np.all(others["target_members"][1:] != scores["target_members"][1:])
  close(others["target_nonmembers"], scores["target_nonmembers"][order])


def test_only_the_paper_s_protocol_chooses_the_epoch_on_target_samples():
  g, key = groups(3.0, 2.0, num=40), rng.stream(0, "nn/p")
  known, targets = g[::2], tuple(g[1::2])
  published = train_nn_attack(key, *known, choose_on=targets, epochs=30)
  scores = nn_scores(g, published=True, epochs=30)
  scores_of = lambda attack: by_group(
    attack.score(*map(np.concatenate, zip(*g, strict=True))), g
  )
  for name, expected in scores_of(published).items():
    np.testing.assert_array_equal(scores[name], expected)
  # The AUC it was chosen for is that of the scores it reports, and no shorter run has a higher.
  assert target_roc(scores).auc == pytest.approx(published.auc, abs=1e-6)
  for epochs in (1, 10, 20, published.epoch + 1):
    shorter = train_nn_attack(key, *known, choose_on=targets, epochs=epochs)
    assert shorter.auc <= published.auc
  assert shorter.epoch == published.epoch
  np.testing.assert_array_equal(scores_of(shorter)["target_members"], scores["target_members"])
  # The attack of the other protocol chooses without them.
  disjoint = nn_scores(g, epochs=30)
  for name, expected in scores_of(train_nn_attack(key, *known, epochs=30)).items():
    np.testing.assert_array_equal(disjoint[name], expected)
  # Swapping the sides of what it is chosen on makes it choose the worst epoch.
  swapped = train_nn_attack(key, *known, choose_on=targets[::-1], epochs=30)
  assert swapped.auc == pytest.approx(1.0 - target_auc(swapped, targets), abs=1e-6)
  assert target_auc(swapped, targets) < published.auc


def target_auc(attack, targets):
  return metrics.roc(*(attack.score(*group) for group in targets)).auc


def test_one_compilation_serves_all_predictors_of_the_same_shapes():
  for seed in (0, 10):
    nn_scores(groups(3.0, 2.0, num=40, seed=seed), seed=seed, epochs=2)
    if seed == 0:
      compiled = nn._train._cache_size(), nn._apply._cache_size()
  assert (nn._train._cache_size(), nn._apply._cache_size()) == compiled


def test_few_samples_and_unequal_sides_run():
  attack = train_nn_attack(jax.random.key(0), answers(0, 2, 4.0), answers(1, 12, 2.0), epochs=2)
  assert np.all(np.isfinite(attack.score(*answers(2, 5, 2.0))))


def test_mistakes_are_refused():
  known_members, _, known_nonmembers, _ = groups(2.0, 2.0, num=5)
  key = jax.random.key(0)
  with pytest.raises(ValueError, match="'nn' needs known"):
    nn_scores([answers(0, 1, 2.0), *groups(2.0, 2.0, num=5)[1:]])
  with pytest.raises(ValueError, match="expected at least 2, to hold out one"):
    train_nn_attack(key, answers(0, 1, 2.0), known_nonmembers)
  with pytest.raises(ValueError, match="differ in the number of classes"):
    train_nn_attack(key, answers(0, 5, 2.0, num_classes=3), known_nonmembers)
  with pytest.raises(ValueError, match=r"held_out is 1\.0; expected a share"):
    train_nn_attack(key, known_members, known_nonmembers, held_out=1.0)
  with pytest.raises(ValueError, match="epochs is 0; expected a whole number"):
    nn_scores(groups(2.0, 2.0, num=5), epochs=0)
  infinite = Group(np.array([[np.inf, 0.0]]), np.array([0]))
  with pytest.raises(ValueError, match="the largest one finite"):
    network_inputs(infinite)
