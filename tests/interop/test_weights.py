"""Where the weights are in checkpoints as people save them, and under which names."""

import jax
import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict

from diffence_jax.interop import from_torch
from diffence_jax.interop.from_torch import read_network
from diffence_jax.interop.weights import AVERAGED, RAW, bare_weights, find_weights

GOOD, OTHER = {"w": np.ones(2)}, {"w": np.zeros(2)}


@pytest.fixture(scope="module")
def resnet():
  """(state dict, variables) of the ResNet fixture."""
  state_dict = pseudo_state_dict(load_fixture("resnet18")[0])
  return state_dict, from_torch("resnet18", state_dict, mean=0.5, std=0.5)[1]


def assert_same(variables, expected):
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


@pytest.mark.parametrize("wrapper", [*AVERAGED, *RAW])
def test_weights_are_found_under_every_name(wrapper):
  checkpoint = {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: GOOD}
  assert find_weights(checkpoint).state_dict is GOOD


@pytest.mark.parametrize("averaged", AVERAGED)
@pytest.mark.parametrize("raw", RAW)
def test_averaged_weights_win_over_raw_ones(averaged, raw):
  found = find_weights({raw: OTHER, averaged: GOOD})
  assert found.state_dict is GOOD
  told = f"Taken: the weights under {averaged}, averaged over training; left: {raw}."
  assert found.told == told


def test_they_are_found_within_each_other():
  assert find_weights({"model": {"net_model": OTHER, "ema_model": GOOD}}).state_dict is GOOD
  assert find_weights({"ema": {"module": GOOD}, "model": OTHER}).path == ("ema", "module")
  assert find_weights({"ema_model": None, "net_model": GOOD}).state_dict is GOOD
  assert find_weights({"model": OTHER, "state_dict": GOOD}).told == (
    "Taken: the weights under state_dict; left: model."
  )
  assert find_weights(GOOD).state_dict is GOOD and find_weights(GOOD).told is None


def test_what_holds_no_arrays_is_no_set_of_weights():
  found = find_weights({"ema": {"decay": 0.99}, "params": {"lr": 0.1}, "model": GOOD})
  assert found.state_dict is GOOD and found.told is None


def test_averaged_weights_without_names_are_passed_over_with_a_word():
  told = find_weights({"ema": {"shadow_params": [np.ones(2)]}, "model": GOOD}).told
  assert (
    told == "Taken: the weights under model; left: ema, which is by number and not by name."
  )


def test_an_averaged_copy_among_the_raw_weights_is_taken():
  state_dict = {"model.w": 0, "ema_model.w": np.ones(2), "initted": np.ones(1)}
  found = find_weights({"ema": state_dict})
  assert bare_weights(found.state_dict).keys() == {"w"}
  assert "ema_model" in found.told and "averaged" in found.told
  # A buffer of this name is no copy.
  assert find_weights({"w": 0, "ema.decay": 0}).state_dict.keys() == {"w", "ema.decay"}


def test_a_checkpoint_that_holds_itself_is_refused():
  checkpoint = {"epoch": 1}
  checkpoint["state_dict"] = {"model": checkpoint}
  with pytest.raises(ValueError, match=r"holds itself, under state_dict\.model"):
    find_weights(checkpoint)
  for _ in range(1000):
    checkpoint = {"model": checkpoint}
  with pytest.raises(ValueError, match="holds itself"):
    find_weights(checkpoint)
  leaf = {}
  for _ in range(20):  # many ways to the same: each is looked at once
    leaf = {name: leaf for name in (*AVERAGED, *RAW)}
  assert find_weights(leaf).state_dict is leaf


@pytest.mark.parametrize(
  "prefix",
  ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.",
   "model._orig_mod.", "network.module."],
)  # fmt: skip
def test_prefixes_of_wrappers_fall_away(resnet, prefix):
  state_dict = {prefix + name: value for name, value in resnet[0].items()}
  assert_same(from_torch("resnet18", state_dict, mean=0.5, std=0.5)[1], resnet[1])


def test_a_part_that_was_compiled_alone_keeps_its_name():
  assert list(bare_weights({"layer._orig_mod.weight": 0})) == ["layer.weight"]


def test_counters_are_left_out(resnet):
  extra = {
    "n_averaged": np.array(7),
    "total_ops": np.zeros(1),
    "conv1.0.total_params": np.ones(1),
  }
  state_dict = {**{f"module.{name}": value for name, value in resnet[0].items()}, **extra}
  assert_same(from_torch("resnet18", state_dict, mean=0.5, std=0.5)[1], resnet[1])


def test_parts_beside_the_network_are_left_out(resnet):
  state_dict = {f"model.{name}": value for name, value in resnet[0].items()}
  beside = {"criterion.weight": np.ones(3), "train_acc.total": np.array(1)}
  assert_same(from_torch("resnet18", {**state_dict, **beside}, mean=0.5, std=0.5)[1], resnet[1])


def test_names_that_become_one_are_refused():
  with pytest.raises(ValueError, match=r"there twice, with a prefix such as 'module.*: 'w'"):
    bare_weights({"net.w": 0, "model.w": 0})


def in_their_names(state_dict, shortcut, head):
  """The names of torchvision and timm, or of kuangliu."""
  renamed = {}
  rules = {
    "conv1.0": "conv1", "conv1.1": "bn1", "fc": head,
    **{f"conv{stage + 1}_x": f"layer{stage}" for stage in range(1, 5)},
  }  # fmt: skip
  layers = {
    "residual_function.0": "conv1", "residual_function.1": "bn1",
    "residual_function.3": "conv2", "residual_function.4": "bn2", "shortcut": shortcut,
  }  # fmt: skip
  for name, value in state_dict.items():
    first = next(own for own in rules if name.startswith(f"{own}."))
    rest = name.removeprefix(first)
    for ours, theirs in layers.items():
      rest = rest.replace(f".{ours}.", f".{theirs}.")
    renamed[rules[first] + rest] = value
  return renamed


@pytest.mark.parametrize("shortcut", ["downsample", "shortcut"])
@pytest.mark.parametrize("head", ["fc", "linear"])
def test_a_resnet_by_the_names_of_other_publishers(resnet, shortcut, head):
  state_dict = in_their_names(resnet[0], shortcut, head)
  network = read_network("resnet18", state_dict, mean=0.5, std=0.5)
  assert_same(network.variables, resnet[1])
  assert network.module == read_network("resnet18", resnet[0], mean=0.5, std=0.5).module
  del state_dict["layer3.1.bn2.running_var"]
  with pytest.raises(ValueError, match=r"missing: layer3\.1\.bn2\.running_var\. "):
    from_torch("resnet18", state_dict, mean=0.5, std=0.5)


def test_a_deeper_resnet_of_the_same_blocks_is_read(resnet):
  state_dict = in_their_names(resnet[0], "downsample", "fc")
  copies = {
    name.replace("layer2.1.", "layer2.2."): value
    for name, value in state_dict.items()
    if name.startswith("layer2.1.")
  }
  module, _ = from_torch("resnet18", {**state_dict, **copies}, mean=0.5, std=0.5)
  assert module.stages == (2, 3, 2, 2)
