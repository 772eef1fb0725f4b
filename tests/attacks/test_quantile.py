"""The quantile-regression attack: hard samples planted, no leak, and cross-fitting."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats
from attacks.grouped import GROUPS, by_group, pool_of
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS, View, run_attack
from diffence_jax.attacks.quantile import image_features, quantile_scores


def samples(seed, num, shift=0.0):
  """Features f[num,3], and phi whose mean and scale depend on them; members lie `shift` scales
  above it.
  """
  rng = np.random.default_rng(seed)
  features = rng.normal(0, 1, (num, 3))
  scale = np.exp(features[:, 1])
  mean = 6.0 * np.sin(features[:, 0])
  return features, mean + scale * (rng.normal(0, 1, num) + shift), mean, scale


def pictures(seed, num, shift=0.0):
  """Images whose brightness and label set the mean of phi."""
  rng = np.random.default_rng(seed)
  labels, brightness = rng.integers(0, 3, num), rng.uniform(0, 1, num)
  images = 200 * brightness[:, None, None, None] + rng.uniform(0, 50, (num, 4, 4, 1))
  phi = 10.0 * brightness + 5.0 * labels + rng.normal(0, 1, num) + shift
  return phi, images.astype(np.uint8), labels


def attack_inputs(num=100, shift=0.0, seed=0):
  """phi, images and labels by the name of the group."""
  shifts = (shift, shift, 0.0, 0.0)
  groups = dict(
    zip(GROUPS, (pictures(seed + i, num, own) for i, own in enumerate(shifts)), strict=True)
  )
  return [{group: values[i] for group, values in groups.items()} for i in range(3)]


def quantile_attack(phi, images, labels, *, seed=0, **options):
  """The attack's scores, group by group, of answers that have this phi of three classes."""
  groups = [(phi[group], labels[group]) for group in GROUPS]
  pool = pool_of(groups)
  logits = np.zeros((len(pool.labels), 3))
  logits[np.arange(len(logits)), pool.labels] = np.concatenate([p for p, _ in groups])
  view = View(
    logits[:, None] + np.log(2.0) * np.eye(3)[pool.labels][:, None],
    pool.labels,
    is_known=pool.is_known,
    is_member=pool.is_member,
    images=None if images is None else np.concatenate([images[group] for group in GROUPS]),
    seed=seed,
  )
  choice = ATTACKS.choose("quantile_regression", options)
  return by_group(run_attack(choice, view), groups)


def test_a_leak_under_differences_between_samples_is_found():
  known, members, others = samples(0, 400), samples(1, 500, shift=1.5), samples(2, 500)
  scored = [quantile_scores(*known[:2], *side[:2]) for side in (members, others)]
  ideal = [(phi - mean) / scale for _, phi, mean, scale in (members, others)]
  found, raw = metrics.roc(*scored), metrics.roc(members[1], others[1])
  best = metrics.roc(*ideal)
  assert raw.auc_interval[1] < found.auc_interval[0]
  assert found.auc > 0.5 * (raw.auc + best.auc)
  assert found.tpr_at_fpr(0.05).low > raw.tpr_at_fpr(0.05).value


def kernel_ridge(kernel, values, penalty, asked):
  """Predicts values f[q] for the kernels f[q,n] of those asked about. The mean is free."""
  centre = np.eye(len(values)) - 1.0 / len(values)
  dual = np.linalg.solve(
    centre @ kernel @ centre + penalty * np.eye(len(values)), values - values.mean()
  )
  return values.mean() + (asked - kernel.mean(axis=0)) @ centre @ dual


def left_out_errors(kernel, values, penalty):
  """What each value is missed by when all others are fitted, one fit for each."""
  errors = []
  for i in range(len(values)):
    rest = np.delete(np.arange(len(values)), i)
    fitted = kernel_ridge(
      kernel[np.ix_(rest, rest)], values[rest], penalty, kernel[i : i + 1, rest]
    )
    errors.append(values[i] - fitted[0])
  return np.array(errors)


def slow_scores(known_features, known_phi, features, phi):
  """Kernel ridge regression in its dual form, every sample left out by a fit of its own."""
  squares = lambda a, b: np.sum((a[:, None] - b[None]) ** 2, axis=-1)
  own, asked = squares(known_features, known_features), squares(features, known_features)
  typical = np.median(own[np.triu_indices(len(own), 1)])
  penalties = 10.0 ** np.linspace(-3.0, 5.0, 17)

  def choose(kernel, values):
    """The least mean squared error, its errors and its penalty."""
    errors = [left_out_errors(kernel, values, penalty) for penalty in penalties]
    at = int(np.argmin([np.mean(e**2) for e in errors]))
    return np.mean(errors[at] ** 2), np.abs(errors[at]), penalties[at]

  found = []
  for width in (0.25, 1.0, 4.0):
    kernels = [np.exp(-d / (width * typical)) for d in (own, asked)]
    found.append((*choose(kernels[0], known_phi), kernels))
  _, errors, penalty, (kernel, of_asked) = min(found, key=lambda one: one[0])
  mean = kernel_ridge(kernel, known_phi, penalty, of_asked)
  log_errors = np.log(np.sqrt(errors**2 + (0.1 * np.median(errors)) ** 2))
  _, _, penalty = choose(kernel, log_errors)
  scales = [
    np.exp(kernel_ridge(kernel, log_errors, penalty, rows)) for rows in (kernel, of_asked)
  ]
  return (phi - mean) / scales[1] / (np.median(errors / scales[0]) / 0.6744897501960817)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_slow_reference(seed):
  known, (features, phi, *_) = samples(seed, 40)[:2], samples(seed + 10, 15)
  scores = quantile_scores(*known, features, phi)
  np.testing.assert_allclose(scores, slow_scores(*known, features, phi), rtol=1e-5, atol=1e-6)


def test_scores_are_standard_scores_of_nonmembers():
  """They approach (phi - mean) / scale, and have its median and quartiles."""
  known, (features, phi, mean, scale) = samples(0, 1500), samples(1, 1000)
  scores = quantile_scores(*known[:2], features, phi)
  assert np.corrcoef(scores, (phi - mean) / scale)[0, 1] > 0.9
  assert scores.dtype == np.float64
  # A fifth of a standard deviation is 3 standard errors of an estimated quantile and more.
  quartiles = scipy.stats.norm.ppf([0.25, 0.5, 0.75])
  np.testing.assert_allclose(np.quantile(scores, [0.25, 0.5, 0.75]), quartiles, atol=0.2)


@pytest.mark.parametrize("num", [24, 300])
def test_useless_features_cost_little(num):
  rng = np.random.default_rng(0)
  features = lambda n: rng.normal(0, 1, (n, 10))
  aucs = []
  for _ in range(5):
    members, others = rng.normal(1, 1, 300), rng.normal(0, 1, 300)
    known = features(num), rng.normal(0, 1, num)
    scored = [quantile_scores(*known, features(300), phi) for phi in (members, others)]
    aucs.append((metrics.roc(*scored).auc, metrics.roc(members, others).auc))
  found, raw = np.mean(aucs, axis=0)
  assert found > raw - 0.05


def test_without_a_leak_there_is_no_success():
  known, members, others = samples(0, 200), samples(1, 400), samples(2, 400)
  scored = [quantile_scores(*known[:2], *side[:2]) for side in (members, others)]
  # Under no leak the AUC's variance is (m + n + 1) / (12 m n): false alarms once in 1,000.
  margin = 3.3 * np.sqrt((400 + 400 + 1) / (12 * 400 * 400))
  assert abs(metrics.roc(*scored).auc - 0.5) < margin


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(12)))
def test_scores_follow_the_samples_and_rise_with_phi(seed, order):
  known, (features, phi, *_) = samples(seed, 30)[:2], samples(seed + 1, 12)
  scores, order = quantile_scores(*known, features, phi), np.array(order)
  permuted = quantile_scores(*known, features[order], phi[order])
  np.testing.assert_allclose(permuted, scores[order], rtol=1e-6, atol=1e-6)
  steps = np.stack([quantile_scores(*known, features, phi + d) for d in (1e-6, 1e3, 1e6)])
  assert np.all(np.diff(np.concatenate([scores[None], steps]), axis=0) > 0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-100, 100), factor=st.floats(0.01, 100))
def test_the_units_of_phi_do_not_matter(seed, shift, factor):
  known, (features, phi, *_) = samples(seed, 30)[:2], samples(seed + 1, 12)
  moved = quantile_scores(known[0], shift + factor * known[1], features, shift + factor * phi)
  np.testing.assert_allclose(
    moved, quantile_scores(*known, features, phi), rtol=1e-4, atol=1e-4
  )


def test_constant_phi_and_features_are_fine():
  known, others = np.zeros((10, 2)), np.array([[0.0, 0.0], [0.0, 0.0]])
  scores = quantile_scores(known, np.full(10, 3.0), others, [2.0, 4.0])
  np.testing.assert_allclose(scores, [-1.0, 1.0])


def test_the_attack_on_images_beats_phi_alone():
  phi, images, labels = attack_inputs(200, shift=2.0)
  scores = quantile_attack(phi, images, labels)
  assert list(scores) == list(GROUPS)
  for side in ("known", "target"):
    found, raw = (
      metrics.roc(values[f"{side}_members"], values[f"{side}_nonmembers"])
      for values in (scores, phi)
    )
    assert found.auc_interval[0] > raw.auc_interval[1]
    assert found.auc > 0.8


def test_known_nonmembers_are_judged_by_the_other_folds():
  phi, images, labels = attack_inputs(30)
  scores = quantile_attack(phi, images, labels, num_folds=5, seed=7)
  known = [values["known_nonmembers"] for values in (phi, images, labels)]
  for fold in np.array_split(np.random.default_rng(7).permutation(30), 5):
    rest = [i for i in range(30) if i not in fold]
    features = image_features(known[1][rest], known[2][rest], num_classes=3, seed=7)
    for i in fold:
      expected = quantile_scores(
        features(known[1][rest], known[2][rest]),
        known[0][rest],
        features(known[1][[i]], known[2][[i]]),
        known[0][[i]],
        seed=7,
      )
      np.testing.assert_allclose(
        scores["known_nonmembers"][i], expected[0], rtol=1e-6, atol=1e-6
      )


def test_a_sample_s_own_phi_moves_no_model_that_judges_it():
  phi, images, labels = attack_inputs(30)
  fold = np.array_split(np.random.default_rng(0).permutation(30), 5)[0]
  first, mates = fold[0], fold[1:]

  def scores(more):
    known = phi["known_nonmembers"].copy()
    known[first] += more
    changed = {**phi, "known_nonmembers": known}
    return quantile_attack(changed, images, labels)["known_nonmembers"]

  base, one, ten = (scores(more) for more in (0.0, 1.0, 10.0))
  assert ten[first] - base[first] == pytest.approx(10 * (one[first] - base[first]), rel=1e-6)
  np.testing.assert_array_equal(ten[mates], base[mates])
  strangers = np.setdiff1d(np.arange(30), fold)
  assert np.all(ten[strangers] != base[strangers])


def test_target_samples_and_members_influence_nobody():
  phi, images, labels = attack_inputs(30)
  scores = quantile_attack(phi, images, labels)
  changed = {
    group: values if group == "known_nonmembers" else np.append(values[:1], values[1:] - 50.0)
    for group, values in phi.items()
  }
  again = quantile_attack(changed, images, labels)
  np.testing.assert_array_equal(again["known_nonmembers"], scores["known_nonmembers"])
  for group in set(scores) - {"known_nonmembers"}:
    assert again[group][0] == pytest.approx(scores[group][0], rel=1e-9)
    assert np.all(again[group][1:] < scores[group][1:])


def test_features_are_components_of_the_fitted_images_and_the_label():
  _, images, labels = pictures(0, 40)
  features = image_features(images, labels, num_classes=3, num_components=5)
  mapped = features(images, labels)
  np.testing.assert_array_equal(mapped[:, 5:], np.eye(3)[labels])
  pixels = images.reshape(40, -1) / 255.0
  _, singular, axes = np.linalg.svd(pixels - pixels.mean(axis=0))
  expected = (pixels - pixels.mean(axis=0)) @ axes[:5].T / (singular[0] / np.sqrt(40))
  np.testing.assert_allclose(np.abs(mapped[:, :5]), np.abs(expected), atol=1e-6)
  # Other images are mapped by the components of those it was fitted to.
  np.testing.assert_allclose(features(images[:3], labels[:3]), mapped[:3], atol=1e-9)
  assert image_features(images[:4], labels[:4], num_classes=3)(images, labels).shape == (40, 6)


def test_identical_images_are_fine():
  phi, images, labels = attack_inputs(12)
  images = {group: np.zeros_like(array) for group, array in images.items()}
  scores = quantile_attack(phi, images, labels)
  assert all(np.all(np.isfinite(s)) for s in scores.values())


def test_mistakes_are_refused():
  phi, images, labels = attack_inputs(12)
  attack = quantile_attack
  with pytest.raises(ValueError, match="'quantile_regression' needs images"):
    attack(phi, None, labels)
  with pytest.raises(ValueError, match=r"num_folds is 1; expected a whole number, 2 to"):
    attack(phi, images, labels, num_folds=1)
  with pytest.raises(ValueError, match="expected uint8"):
    attack(phi, {g: a / 255.0 for g, a in images.items()}, labels)
  with pytest.raises(
    ValueError, match="num_classes is -1; expected a whole number, at least 1"
  ):
    image_features(images["known_nonmembers"], labels["known_nonmembers"], num_classes=-1)
  with pytest.raises(ValueError, match="integers from 0 to 1"):
    image_features(images["known_nonmembers"], labels["known_nonmembers"], num_classes=2)
  features = np.zeros((6, 2))
  with pytest.raises(ValueError, match="n >= 4"):
    quantile_scores(features[:3], np.zeros(3), features, np.zeros(6))
  with pytest.raises(ValueError, match="known features or known phi are not finite"):
    quantile_scores(features, np.full(6, np.inf), features, np.zeros(6))
  with pytest.raises(ValueError, match=r"expected \[N, F\] and \[N\]"):
    quantile_scores(features, np.zeros(6), features, np.zeros(5))


def test_many_classes_take_no_more_memory_than_their_rows():
  _, images, labels = pictures(0, 12)
  fewer = image_features(images, labels, num_classes=3)(images, labels)
  num_classes = 85_742
  tracemalloc.start()
  features = image_features(images, labels, num_classes=num_classes)(images, labels)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 8 * features.nbytes  # a square matrix of the classes has 54.8 GiB
  num = fewer.shape[1] - 3
  np.testing.assert_array_equal(features[:, : num + 3], fewer)
  assert features.shape == (12, num + num_classes) and not features[:, num + 3 :].any()


def test_what_would_fail_in_another_librarys_words_is_named():
  rng = np.random.default_rng(0)
  own, phi = rng.normal(size=(6, 2)), rng.normal(size=6)
  for arrays, options, message in (
    ((own, phi, own, phi), {"seed": -1}, "seed is -1"),
    ((own[:, :0], phi, own[:, :0], phi), {}, "none of them 0"),
    ((1e200 * own, phi, own, phi), {}, "known features or known phi are not finite, or beyond"),
    ((own, phi, own, 1e200 * phi), {}, "features or phi are not finite, or beyond"),
  ):
    with pytest.raises(ValueError, match=message):
      quantile_scores(*arrays, **options)
  images, labels = rng.integers(0, 256, (4, 4, 4, 1), np.uint8), np.array([0, 1, 2, 0])
  features = image_features(images, labels, num_classes=3)
  with pytest.raises(ValueError, match=r"images are of size \[5, 4, 1\]; expected \[4, 4, 1\]"):
    features(np.zeros((2, 5, 4, 1), np.uint8), [0, 1])
  with pytest.raises(ValueError, match="labels are no array"):
    image_features(images, [[0], [1, 2]], num_classes=3)
