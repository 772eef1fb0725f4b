"""Records of answers: read in all their forms, and refused by the array's name."""

import numpy as np
import pytest
import scipy.special

from diffence_jax.recorded.record import read_record

NUM = 20


def arrays(**changes):
  """A record of the smallest kind, with changes; None leaves an array out."""
  draw = np.random.default_rng(0)
  record = {
    "logits": draw.normal(size=(NUM, 3)).astype(np.float32),
    "labels": np.arange(NUM) % 3,
    "is_member": np.arange(NUM) < NUM // 2,
  }
  return {name: values for name, values in {**record, **changes}.items() if values is not None}


def test_logits_are_taken_as_they_are():
  record = read_record(arrays())
  assert [recorded.name for recorded in record.predictors] == ["undefended"]
  np.testing.assert_array_equal(record.predictors[0].logits[:, 0], arrays()["logits"])
  assert record.is_known is None and record.groups is None and record.shadow_membership is None
  np.testing.assert_array_equal(record.ids, np.arange(NUM))


@pytest.mark.parametrize("shape", [(NUM,), (NUM, 1), (NUM, 1, 1)])
def test_one_output_of_a_sigmoid_is_two_classes(shape):
  z = np.linspace(-3, 3, NUM).astype(np.float32)
  binary = {"labels": np.arange(NUM) % 2}
  logits = read_record(arrays(logits=z.reshape(shape), **binary)).predictors[0].logits
  assert logits.shape == (NUM, 1, 2)
  probability = scipy.special.expit(z)
  np.testing.assert_allclose(scipy.special.softmax(logits, axis=-1)[:, 0, 1], probability, 1e-6)
  given = arrays(logits=None, probabilities=probability.reshape(shape), **binary)
  same = read_record(given).predictors[0].logits
  np.testing.assert_allclose(same[..., 1] - same[..., 0], logits[..., 1], atol=1e-5)


def test_probabilities_become_logarithms_and_zero_minus_infinity():
  probabilities = np.tile([0.0, 0.25, 0.75], (NUM, 1))
  logits = read_record(arrays(logits=None, probabilities=probabilities)).predictors[0].logits
  assert np.isneginf(logits[:, 0, 0]).all()
  np.testing.assert_allclose(logits[:, 0, 1:], np.log([[0.25, 0.75]] * NUM), rtol=1e-6)


def test_a_folder_of_files_is_the_same_record_and_shadow_answers_stay_there(tmp_path):
  draw = np.random.default_rng(1)
  half = draw.random((2, NUM)) < 0.5
  given = arrays(
    logits=draw.normal(size=(NUM, 2, 3)),
    shadow_logits=draw.normal(size=(4, NUM, 2, 3)),
    shadow_membership=np.concatenate([half, ~half]),
    ids=np.array([f"image {i}" for i in range(NUM)]),
    groups=np.arange(NUM) % 4,
    is_known=np.arange(NUM) % 2 == 0,
  )
  given["defended/mine/v2/logits"] = given["logits"] / 2
  given["defended/mine/v2/shadow_logits"] = given["shadow_logits"] / 2
  for name, values in given.items():
    (tmp_path / f"{name}.npy").parent.mkdir(parents=True, exist_ok=True)
    np.save(tmp_path / f"{name}.npy", values)
  np.savez(tmp_path / "all.npz", **given)
  for source in (tmp_path, tmp_path / "all.npz", given):
    record = read_record(source)
    assert [recorded.name for recorded in record.predictors] == ["undefended", "mine/v2"]
    for recorded, scale in zip(record.predictors, (1, 2), strict=True):
      assert len(recorded.shadows) == 4
      expected = given["shadow_logits"][3] / scale
      np.testing.assert_allclose(recorded.shadows[3], expected, rtol=1e-6)
    assert record.ids[3] == "image 3" and set(record.groups) == set("0123")
    np.testing.assert_array_equal(record.is_known, given["is_known"])
  mapped = read_record(tmp_path).predictors[0].shadows._outputs.values
  assert isinstance(mapped, np.memmap)


def test_zeros_and_ones_are_a_mask():
  record = read_record(arrays(is_member=(np.arange(NUM) < 9).astype(np.int64)))
  assert record.is_member.dtype == bool and record.is_member.sum() == 9


def nan_at(shape):
  values = np.zeros(shape)
  values[3] = np.nan
  return values


HALVES = np.stack([np.arange(NUM) < 10, np.arange(NUM) >= 10])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"labels": None}, "has no 'labels'; it has is_member, logits"),
    ({"is_member": None}, "has no 'is_member'"),
    ({"logits": None}, "no logits and no probabilities"),
    ({"logit": np.zeros(NUM)}, "'logit', which is none of those known; did you mean 'logits'"),
    ({"defended/a/logit": np.zeros(NUM)}, "did you mean 'logits'"),
    ({"defended/a/shadow_logits": np.zeros((2, NUM, 3))}, "no defended/a/logits"),
    ({"probabilities": np.full((NUM, 3), 1 / 3)}, "logits and probabilities; expected one"),
    (
      {"logits": nan_at((NUM, 3))},
      "logits have 1 answers without a finite largest logit .*, the first of sample 3",
    ),
    ({"logits": np.full((NUM, 3), np.inf)}, "20 answers without a finite"),
    ({"logits": np.zeros((NUM + 1, 3))}, r"logits have shape \[21, 3\]; expected \[N=20\]"),
    ({"logits": np.zeros((NUM, 2, 2, 3))}, r"expected \[N=20\]"),
    ({"logits": np.zeros((NUM, 3), int)}, "logits are int64; expected floating-point"),
    ({"logits": np.zeros((NUM, 0))}, "no empty axis"),
    ({"logits": None, "probabilities": np.zeros((NUM, 3))}, "row's sum is up to 1 from 1"),
    ({"logits": None, "probabilities": nan_at((NUM, 3))}, "expected probabilities"),
    ({"labels": np.full(NUM, 3)}, "labels range from 3 to 3; expected 0 to 2"),
    ({"labels": np.full(NUM, -1)}, "labels range from -1"),
    ({"labels": np.zeros(NUM)}, "labels are float64"),
    ({"labels": np.zeros((NUM, 3), int)}, r"labels are int64\[20, 3\]"),
    ({"labels": np.zeros(0, int)}, r"labels are int64\[0\]"),
    ({"is_member": np.ones(NUM, bool)}, "0 non-members; expected at least 4"),
    ({"is_member": np.zeros(NUM, bool)}, "0 members"),
    ({"is_member": np.arange(NUM)}, "is_member has 2; expected True and False"),
    ({"is_member": np.zeros(3, bool)}, r"is_member has shape \[3\]; expected \[20\]"),
    ({"is_known": np.zeros(NUM, bool)}, "0 known members"),
    ({"is_known": np.ones(NUM, bool)}, "0 unknown members"),
    ({"ids": np.zeros(NUM)}, "ids are float64"),
    ({"ids": np.arange(NUM) // 2}, "2 samples have the id 0; expected ids that tell"),
    ({"logits": np.full((NUM, 4), 0.25)}, "logits look like probabilities.* Call them prob"),
    (
      {"defended/a/logits": np.full((NUM, 4), 0.25)},
      "defended/a/logits look like .* Call them defended/a/probabilities",
    ),
    ({"ids": np.array(["a\udcff"] * NUM)}, r"ids have 'a\\udcff'; expected UTF-8"),
    ({"groups": np.array([b"\xff"] * NUM)}, r"groups have '\\udcff'; expected UTF-8"),
    ({"defended/\udcff/logits": np.zeros((NUM, 3))}, "names of defenses have"),
    ({"groups": np.zeros(3, int)}, r"groups are int64\[3\]; expected .* \[20\]"),
    ({"shadow_logits": np.zeros((2, NUM, 3))}, "and no shadow_membership"),
    ({"shadow_membership": HALVES}, "shadow_membership and no shadow_logits"),
    (
      {"shadow_logits": np.zeros((2, NUM, 3)), "shadow_membership": HALVES[[0, 0]]},
      "shadow_membership never varies",
    ),
    (
      {"shadow_logits": np.zeros((2, NUM, 3)), "shadow_membership": HALVES.T},
      r"shadow_membership has shape \[20, 2\]; expected \[S, 20\], a row for each",
    ),
    (
      {"shadow_logits": np.zeros((3, NUM, 3)), "shadow_membership": HALVES},
      r"shadow_logits have shape \[3, 20, 3\]; expected \[S=2, N=20\]",
    ),
    (
      {"shadow_logits": np.zeros((2, NUM, 4)), "shadow_membership": HALVES},
      "the same with S models in front",
    ),
    ({"defended/a/logits": np.zeros((NUM, 4))}, "'a' have 4 classes, those of the undefended"),
    ({"defended/undefended/logits": np.zeros((NUM, 3))}, "expected another name"),
  ],
)
def test_what_cannot_be_audited_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    read_record(arrays(**changes))


def test_nan_of_a_shadow_model_is_named_by_the_model():
  values = np.zeros((2, NUM, 3))
  values[1, 4] = np.nan
  record = read_record(arrays(shadow_logits=values, shadow_membership=HALVES))
  with pytest.raises(ValueError, match=r"shadow_logits\[1\] have 1 answers"):
    list(record.predictors[0].shadows)


def test_files_that_are_none_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match="There is no file"):
    read_record(tmp_path / "none.npz")
  (tmp_path / "text.npz").write_text("logits")
  with pytest.raises(ValueError, match=r"cannot be read as an \.npz"):
    read_record(tmp_path / "text.npz")
  np.savez(tmp_path / "pickled.npz", **arrays(labels=np.array([{}] * NUM)))
  with pytest.raises(ValueError, match="pickled Python objects"):
    read_record(tmp_path / "pickled.npz")
