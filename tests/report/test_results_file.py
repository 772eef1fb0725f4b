"""`results.json`: what is written is read back, and nothing else is taken for it."""

import dataclasses
import json
import math

import pytest
from report_example import changed, defended_alone, stored, stored_arrays, without_shadow

from diffence_jax.report import read_results, write_report
from diffence_jax.report.results import SCHEMA, Results, to_json
from diffence_jax.training.recipe import Guarantee


def _private():
  """A classifier with a guarantee, some attacks left out, both models saved ones."""
  results = defended_alone()
  own = dataclasses.replace(results.defense, guarantee=Guarantee(12.5, 1e-5, 0.1))
  diffusion = dataclasses.replace(results.diffusion, trained_on=None, loss=None)
  left_out = {"own:attack": ("shadow models (shadow.num_models)", "ask")}
  return changed(results, defense=own, diffusion=diffusion, left_out=left_out)


def _file(path, content):
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return path


@pytest.mark.parametrize("results", [stored, without_shadow, defended_alone, _private])
def test_what_is_written_is_read_back(results, tmp_path):
  text = to_json(results())
  found = read_results(_file(tmp_path / "results.json", text))
  assert isinstance(found, Results)
  assert found == results()
  assert to_json(found) == text
  assert text.endswith("}\n")
  assert json.loads(text)["schema"] == SCHEMA


def test_rows_are_typed_when_they_are_read(tmp_path):
  found = read_results(_file(tmp_path / "results.json", to_json(_private())))
  first, fresh = found.predictors[0], stored().predictors[0]
  assert type(first.attacks[0]) is type(fresh.attacks[0])
  assert type(first.attacks[0].tpr_at_fpr[0]) is type(fresh.attacks[0].tpr_at_fpr[0])
  assert type(first.highest_tpr_at_fpr[0]) is type(fresh.highest_tpr_at_fpr[0])
  assert type(found.shadow.samples[-1].auc_change) is type(fresh.gap)
  assert found.defense.guarantee == Guarantee(12.5, 1e-5, 0.1)
  assert found.data.image_shape == (8, 8, 1)
  assert found.undefended == found.predictors[0]


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_refused(figure, tmp_path):
  first, *others = stored().predictors
  results = changed(predictors=(dataclasses.replace(first, nll=figure), *others))
  with pytest.raises(ValueError, match="not JSON compliant"):
    to_json(results)
  with pytest.raises(ValueError, match="not JSON compliant"):
    write_report(results, stored_arrays(), (), tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("schema", [1, SCHEMA + 1, "2", None])
def test_another_schema_is_refused_with_advice(schema, tmp_path):
  content = json.loads(to_json(stored())) | {"schema": schema}
  read = f"schemas {SCHEMA - 1} and {SCHEMA}"
  message = f"of schema {schema!r}; .* reads {read}. Run the experiment again"
  with pytest.raises(ValueError, match=message):
    read_results(_file(tmp_path / "results.json", content))


def test_a_file_from_before_schemas_is_refused_with_advice(tmp_path):
  content = json.loads(to_json(stored()))
  del content["schema"]
  with pytest.raises(ValueError, match=r"of schema None; .* in another workdir"):
    read_results(_file(tmp_path / "results.json", content))


def test_a_damaged_file_is_refused(tmp_path):
  text = to_json(stored())
  for damaged in ("", text[:1000], "\x00" * 10):
    with pytest.raises(ValueError, match=r"results.json is no JSON"):
      read_results(_file(tmp_path / "results.json", damaged))
  (tmp_path / "results.json").write_bytes(b"\xff\xfe")
  with pytest.raises(ValueError, match=r"results.json is no JSON"):
    read_results(tmp_path / "results.json")
  for other in ([], 3, "text", None):
    with pytest.raises(ValueError, match="expected a run"):
      read_results(_file(tmp_path / "results.json", json.dumps(other)))
  content = json.loads(text)
  for key, wrong in (("data", None), ("predictors", 3), ("shadow", [1]), ("versions", "x")):
    with pytest.raises(ValueError, match="expected"):
      read_results(_file(tmp_path / "results.json", content | {key: wrong}))


def test_fields_that_are_missing_or_unknown_are_named(tmp_path):
  content = json.loads(to_json(stored()))
  del content["data"]["reference"]
  with pytest.raises(ValueError, match="DataFacts has other fields than expected: reference"):
    read_results(_file(tmp_path / "results.json", content))
  content = json.loads(to_json(stored())) | {"more": 1}
  with pytest.raises(ValueError, match="Results has other fields than expected: more"):
    read_results(_file(tmp_path / "results.json", content))


def test_a_file_that_is_not_there_is_said_so(tmp_path):
  with pytest.raises(FileNotFoundError):
    read_results(tmp_path / "results.json")


@pytest.mark.parametrize(
  "text, message",
  [
    ("[" * 100_000, "is no JSON"),
    ("[]", "has a list; expected a run's results.json"),
    ('{"schema": "2"}', "is of schema '2'"),
  ],
)
def test_what_is_no_results_file_is_named(tmp_path, text, message):
  file = tmp_path / "results.json"
  file.write_text(text)
  with pytest.raises(ValueError, match=f"{file} {message}"):
    read_results(file)
  with pytest.raises(FileNotFoundError, match="There is no file"):
    read_results(tmp_path / "none")
  with pytest.raises(ValueError, match="no regular file"):
    read_results(tmp_path)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("seed", "x", "seed: Got a str; expected a int"),
    ("seed", True, "seed: Got a bool; expected a int"),
    ("protocol", None, "protocol: Got a NoneType; expected a str"),
    ("predictors", [None], r"predictors\[0\]: Got a NoneType; expected a dict"),
  ],
)
def test_a_field_of_another_kind_is_named_with_the_file(tmp_path, field, value, message):
  content = json.loads(to_json(stored())) | {field: value}
  file = tmp_path / "results.json"
  file.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f"{file} is damaged: {message}"):
    read_results(file)
