"""What functions of the audit cannot use is named: no foreign words, no silent figure."""

import jax
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax.attacks.nn import Group, train_nn_attack
from diffence_jax.audit.judge import class_thresholds
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.predictors import Predictor, fit_predictors
from diffence_jax.defense import POLICIES
from diffence_jax.training.feed import check_names

SCORES = np.arange(4.0)


@pytest.mark.parametrize(
  "labels", [[0, 1, 2, 5], [0, 1, 2], [0.0, 1.0, 2.0, 0.0], [-1, 0, 1, 2]]
)
def test_labels_that_are_no_classes_have_no_threshold(labels):
  with pytest.raises(ValueError, match=r"member_labels are .*; expected a whole number, 0 "):
    class_thresholds(SCORES, SCORES, labels, [0, 1, 2, 0], num_classes=3)
  with pytest.raises(ValueError, match="nonmember_labels are"):
    class_thresholds(SCORES, SCORES, [0, 1, 2, 0], labels, num_classes=3)


def test_other_arguments_are_named():
  with pytest.raises(ValueError, match="seed is None; expected a whole number"):
    membership_matrix(4, 10, None)
  with pytest.raises(TypeError, match="members is a tuple"):
    fit_predictors([Predictor("average", POLICIES.choose("average"))], (1, 2, 3), None)
  with pytest.raises(TypeError, match="path is a int"):
    dj.interop.read_schedule(3)
  with pytest.raises(ValueError, match="names has 'a' 2 times"):
    check_names(["a", "b", "a"])


def test_who_chooses_the_epoch_is_two_groups():
  group = Group(np.zeros((4, 3), np.float32), np.zeros(4, np.int64))
  with pytest.raises(ValueError, match="choose_on has 1 groups; expected two"):
    train_nn_attack(jax.random.key(0), group, group, choose_on=(group,))
