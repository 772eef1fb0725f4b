"""Audits of records: against the library, slow references, and what must always hold."""

import csv
import json
import math

import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import metrics
from diffence_jax.attacks import log_probability, true_label_phi
from diffence_jax.cli import main
from diffence_jax.recorded.in_turn import partners_first
from diffence_jax.recorded.report import FILES

NUM, MODELS, CLASSES = 1000, 32, 5
QUICK = ("loss", "confidence", "lira_online", "rmia_online")


def make_record(leak=1.0, num=NUM, num_models=MODELS, queries=None):
  """Answers of models that are surer of their members by `leak`, and of their shadow models."""
  draw = np.random.default_rng(7)
  labels = draw.integers(0, CLASSES, num)
  hardness = draw.normal(0, 1.0, num)

  def logits(membership):
    shape = (num, CLASSES) if queries is None else (num, queries, CLASSES)
    z = draw.normal(0, 1.0, shape)
    at = (np.arange(num), labels) if queries is None else (np.arange(num), slice(None), labels)
    lead = 2.0 + hardness + leak * membership
    z[at] += lead if queries is None else lead[:, None]
    return z.astype(np.float32)

  half = draw.random((num_models // 2, num)) < 0.5
  shadow_membership = np.concatenate([half, ~half])
  is_member = draw.random(num) < 0.5
  return {
    "logits": logits(is_member),
    "labels": labels,
    "is_member": is_member,
    "shadow_logits": np.stack([logits(row) for row in shadow_membership]),
    "shadow_membership": shadow_membership,
  }


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
  """(record, results, folder) of a record with known samples, groups and a defense."""
  record = make_record()
  draw = np.random.default_rng(3)
  record["is_known"] = draw.random(NUM) < 0.3
  record["ids"] = np.arange(NUM) + 5000
  record["groups"] = np.where(record["labels"] < 2, "first", "second")
  record["groups"][:3] = "few"
  record["defended/halved/logits"] = record["logits"] / 2
  record["defended/halved/shadow_logits"] = record["shadow_logits"] / 2
  record["defended/constant/logits"] = np.where(
    np.arange(CLASSES) == record["logits"].argmax(axis=1)[:, None], 3.0, 0.0
  )
  folder = tmp_path_factory.mktemp("audit") / "report"
  results = dj.audit_record(record, folder, attacks=QUICK)
  return record, results, folder


def rows_of(folder, name="examples.csv"):
  with open(folder / name, newline="") as file:
    return list(csv.DictReader(file))


def scores_of(folder, attack, classifier="undefended"):
  """Id to score."""
  return {
    int(row["id"]): float(row["score"])
    for row in rows_of(folder)
    if (row["attack"], row["classifier"]) == (attack, classifier)
  }


def slow_lira(phi, shadow_phi, membership):
  """Log-likelihood ratios of normal laws with one variance a side, one number at a time."""
  means, squares, freedom = {}, {True: 0.0, False: 0.0}, {True: 0, False: 0}
  for n in range(len(phi)):
    for side in (True, False):
      values = [float(row[n]) for row, members in zip(shadow_phi, membership, strict=True)
                if bool(members[n]) == side]  # fmt: skip
      means[n, side] = math.fsum(values) / len(values)
      squares[side] += math.fsum((value - means[n, side]) ** 2 for value in values)
      freedom[side] += len(values) - 1
  variance = {side: squares[side] / freedom[side] for side in squares}

  def log_density(n, side):
    deviation = float(phi[n]) - means[n, side]
    return -0.5 * math.log(2 * math.pi * variance[side]) - deviation**2 / (2 * variance[side])

  return np.array([log_density(n, True) - log_density(n, False) for n in range(len(phi))])


def test_lira_is_the_librarys_and_a_slow_reference(audited):
  record, _, folder = audited
  phi = np.asarray(true_label_phi(record["logits"], record["labels"]))
  shadow_phi = np.stack([true_label_phi(z, record["labels"]) for z in record["shadow_logits"]])
  expected = dj.attacks.lira(
    phi, shadow_phi, record["shadow_membership"], online=True, variance="global"
  )
  np.testing.assert_allclose(
    expected, slow_lira(phi, shadow_phi, record["shadow_membership"]), rtol=1e-8, atol=1e-8
  )
  scores = scores_of(folder, "lira_online")
  reported = np.flatnonzero(~record["is_known"])
  assert sorted(scores) == [n + 5000 for n in reported]
  found = [scores[n + 5000] for n in reported]
  np.testing.assert_allclose(found, expected[reported], rtol=1e-4, atol=1e-4)


def test_rmia_is_the_librarys_and_a_slow_reference(audited):
  record, _, folder = audited
  log_p = np.asarray(log_probability(record["logits"], record["labels"]), np.float64)
  shadow = np.stack([log_probability(z, record["labels"]) for z in record["shadow_logits"]])
  membership = record["shadow_membership"]
  population = np.flatnonzero(record["is_known"] & ~record["is_member"])
  scores = scores_of(folder, "rmia_online")
  p, shadow_p = np.exp(log_p), np.exp(shadow.astype(np.float64))

  def ratio(n):
    sides = [shadow_p[membership[:, n], n].mean(), shadow_p[~membership[:, n], n].mean()]
    return p[n] / (sum(sides) / 2)

  of_population = [ratio(z) for z in population]
  for n in np.flatnonzero(~record["is_known"])[:40]:
    share = np.mean([ratio(n) >= z for z in of_population])
    # Ties are broken by less than one of the population.
    assert share - 2e-3 <= scores[n + 5000] < share + 1.0 / len(population) + 2e-3
  expected = dj.attacks.rmia(
    log_p, shadow, membership, log_p[population], shadow[:, population],
    membership[:, population], break_ties=True,
  )  # fmt: skip
  reported = np.flatnonzero(~record["is_known"])
  found = [scores[n + 5000] for n in reported]
  np.testing.assert_allclose(found, expected[reported], atol=2e-3)


def test_figures_are_those_of_the_scores(audited):
  record, results, folder = audited
  row = {attack.name: attack for attack in results.undefended.attacks}["lira_online"]
  scores = scores_of(folder, "lira_online")
  sides = [
    [scores[n + 5000] for n in np.flatnonzero(~record["is_known"] & chosen)]
    for chosen in (record["is_member"], ~record["is_member"])
  ]
  roc = metrics.roc(*sides)
  assert row.auc.value == pytest.approx(roc.auc, abs=1e-9)
  assert row.tpr_at_fpr[1].value == pytest.approx(roc.tpr_at_fpr(0.01).value)
  assert (results.num_members, results.num_nonmembers) == tuple(map(len, sides))
  assert row.auc.low > 0.6 and results.thresholds == "known"


def test_every_defense_and_every_model_in_turn_has_its_rows(audited):
  _, results, folder = audited
  assert [row.name for row in results.predictors] == ["undefended", "halved", "constant"]
  in_turn = {(row.predictor, row.attack): row for row in results.in_turn}
  assert set(in_turn) == {
    (name, attack) for name in ("undefended", "halved", "labels alone")
    for attack in ("confidence", "lira_online", "rmia_online")
  }  # fmt: skip
  lira = in_turn["undefended", "lira_online"]
  assert lira.num_models == MODELS and lira.auc.low > 0.6
  # Halving all logits alike hides nothing from shadow models that are halved too.
  assert abs(in_turn["halved", "lira_online"].auc_change.value) < 0.05
  constant = results.predictors[2]
  # No change is told where fewer attacks were run.
  assert constant.highest_auc.relative_change is None
  assert results.predictors[1].highest_auc.relative_change is not None
  assert constant.label_changes == 0 and constant.highest_auc.value < lira.auc.value
  assert results.left_out["LiRA online behind constant"].startswith("need shadow_logits")
  assert {row["metric"] for row in rows_of(folder, "results.csv")} >= {"auc", "in_turn_auc"}
  page = (folder / "report.html").read_text()
  for rows, title in ((results.chosen, "chosen on other models"), (results.named, "can name"),
                      (results.vulnerability, "Single examples")):  # fmt: skip
    assert [row.predictor for row in rows] == ["undefended", "halved"] and title in page


def test_groups_have_figures_of_their_own(audited):
  record, results, _ = audited
  assert {row.group for row in results.slices} == {"first", "second"}
  assert results.slices_left_out == ("few",)
  for row in results.slices:
    inside = ~record["is_known"] & (record["groups"] == row.group)
    assert row.num_members == np.sum(inside & record["is_member"])
    assert row.auc.low <= row.auc.value <= row.auc.high


def test_the_page_and_the_files_are_there_and_private_things_stay_in_examples(audited):
  record, results, folder = audited
  assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
  assert folder.stat().st_mode & 0o077 == 0
  assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
  plain = json.loads((folder / "results.json").read_text())
  assert plain["schema"] == 3 and len(plain["predictors"]) == 3
  page = (folder / "report.html").read_text()
  assert "of 100 pairs" in page.lower()
  behind = {name: page.split(f"Behind {name}")[1][:250] for name in ("halved", "constant")}
  assert "do not compare" not in behind["halved"] and "do not compare" in behind["constant"]
  assert "5003" not in page and str(record["ids"][-1]) not in page
  again = dj.audit_record(record, folder, attacks=QUICK)
  assert again == results


def test_without_known_samples_thresholds_are_learnt_on_halves(tmp_path):
  record = make_record(num=400, num_models=8)
  results = dj.audit_record(record, tmp_path / "out", attacks=QUICK)
  assert results.thresholds == "halves" and results.num_members == record["is_member"].sum()
  assert "each half" in (tmp_path / "out" / "report.html").read_text()
  row = {attack.name: attack for attack in results.undefended.attacks}["rmia_online"]
  assert row.auc.low > 0.5
  # Every sample has the score of the half that it was not known in.
  assert len(scores_of(tmp_path / "out", "rmia_online")) == 400
  assert results.left_out["RMIA online on every model in turn"] == "need is_known"


def test_no_leak_is_found_where_there_is_none(tmp_path):
  record = make_record(leak=0.0, num=600, num_models=16)
  results = dj.audit_record(record, tmp_path / "out", attacks=QUICK)
  figures = [
    attack.auc for attack in results.undefended.attacks if attack.threshold == "global"
  ]
  for auc in (*figures, *(row.auc for row in results.in_turn)):
    # Of so many intervals one or the other may miss; none by as much as its own length.
    assert abs(auc.value - 0.5) < auc.high - auc.low


def test_repeated_queries_help_the_attacker(tmp_path):
  once, often = (
    dj.audit_record(
      make_record(leak=0.7, num=600, num_models=16, queries=queries), tmp_path / str(queries),
      attacks=("lira_online",),
    ).undefended.highest_auc.value
    for queries in (1, 8)
  )  # fmt: skip
  assert often > once + 0.05


def test_two_arrays_and_a_mask_are_enough(tmp_path):
  record = make_record(num=200)
  given = {name: record[name] for name in ("logits", "labels", "is_member")}
  results = dj.audit_record(given, tmp_path / "out", attacks=("loss", "lira_online"))
  assert {attack.name for attack in results.undefended.attacks} == {"correctness", "loss"}
  assert "LiRA online" in results.left_out and "every model in turn" in results.left_out


def test_where_none_of_the_attacks_can_be_run_nothing_is_reported(tmp_path):
  record = make_record(num=200)
  given = {name: record[name] for name in ("logits", "labels", "is_member")}
  with pytest.raises(
    ValueError, match="None of the attacks can be run: lira_online would need"
  ):
    dj.audit_record(given, tmp_path / "out", attacks=("lira_online",))
  assert not (tmp_path / "out").exists()


def test_nan_of_a_shadow_model_is_an_error_and_leaves_nothing(tmp_path):
  record = make_record(num=40, num_models=8)
  record["shadow_logits"][5, 7, 2] = np.nan
  with pytest.raises(ValueError, match=r"shadow_logits\[5\] have 1 answers"):
    dj.audit_record(record, tmp_path / "out", attacks=QUICK)
  assert not (tmp_path / "out").exists()


def test_partners_stand_beside_each_other():
  draw = np.random.default_rng(0)
  half = draw.random((3, 50)) < 0.5
  alone = draw.random((2, 50)) < 0.5
  membership = np.concatenate([half, alone, ~half[::-1]])
  order = partners_first(membership)
  assert sorted(order) == list(range(8))
  ordered = membership[order]
  for pair in range(3):
    np.testing.assert_array_equal(ordered[2 * pair], ~ordered[2 * pair + 1])
  np.testing.assert_array_equal(ordered[6:], alone)


@pytest.mark.parametrize(
  ("attacks", "title"), [(("loss", "lira_offline"), "LiRA offline"), (("loss",), "")]
)
def test_every_model_in_turn_needs_no_certain_attack(tmp_path, attacks, title):
  record = make_record(num=200, num_models=8)
  results = dj.audit_record(record, tmp_path / "out", attacks=attacks)
  assert results.main_attack == title
  # The last is behind an answer that tells the label alone.
  assert [row.attack for row in results.in_turn] == (["lira_offline"] * 2 if title else [])
  assert ("every model in turn" in results.left_out) == (not title)


def test_an_attack_of_ones_own_is_run(tmp_path, monkeypatch):
  (tmp_path / "mine.py").write_text("def largest(view):\n  return view.logits[:, 0].max(-1)\n")
  monkeypatch.syspath_prepend(tmp_path)
  record = make_record(num=200)
  given = {name: record[name] for name in ("logits", "labels", "is_member")}
  results = dj.audit_record(given, tmp_path / "out", attacks=("mine:largest",))
  assert [attack.name for attack in results.undefended.attacks][-1] == "mine:largest"


def test_an_error_in_an_attack_of_ones_own_names_it(tmp_path, monkeypatch, capsys):
  (tmp_path / "faulty.py").write_text(
    "def refuse(view):\n  raise ValueError('not so')\n\ndef fail(view):\n  view.logit\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  np.savez(tmp_path / "record.npz", **make_record(num=200, num_models=8))
  given = (tmp_path / "record.npz", f"--output={tmp_path / 'out'}")
  assert run(*given, "--attacks=loss,faulty:refuse") == 2
  assert capsys.readouterr().err == "diffence: not so (in the attack 'faulty:refuse').\n"
  assert run(*given, "--attacks=loss,faulty:fail") == 1
  said = capsys.readouterr().err
  assert "(in the attack 'faulty:fail'). This is a fault of diffence, or of" in said
  assert ".." not in said


def run(*arguments):
  return main.run(["diffence", "audit", *map(str, arguments)])


def test_the_command(tmp_path, capsys):
  np.savez(tmp_path / "record.npz", **make_record(num=200, num_models=8))
  output = tmp_path / "out"
  assert run(tmp_path / "record.npz", f"--output={output}", "--attacks=loss,lira_online") == 0
  out = capsys.readouterr().out
  assert "of 100 pairs" in out.lower() and "LiRA online" in out and str(output) in out
  assert (output / "report.html").is_file()


def test_help_helps(capsys):
  assert run("--help") == 0
  assert "is_member" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "required: --output"),
    (["{record}"], "required: --output"),
    (["none.npz", "--output={new}"], "no file none.npz"),
    (["{record}", "--output={used}"], "holds other.txt"),
    (["{record}", "--output={file}"], "is no folder"),
    (["{record}", "--output={new}", "--seed=x"], "invalid int value"),
    (["{record}", "--output={new}", "--seed=-1"], "seed is -1"),
    (["{record}", "--output={new}", "--attacks=lira"], "lira"),
    (["{bad}", "--output={new}"], "0 non-members"),
  ],
)
def test_bad_arguments_end_in_one_line_and_leave_nothing(tmp_path, capsys, arguments, message):
  record = make_record(num=40)
  given = {name: record[name] for name in ("logits", "labels", "is_member")}
  np.savez(tmp_path / "record.npz", **given)
  np.savez(tmp_path / "bad.npz", **{**given, "is_member": np.ones(40, bool)})
  (tmp_path / "used").mkdir()
  (tmp_path / "used" / "other.txt").touch()
  names = {name: tmp_path / name for name in ("new", "used")}
  names |= {name: tmp_path / f"{name}.npz" for name in ("record", "bad")}
  names["file"] = names["record"]
  assert run(*(argument.format(**names) for argument in arguments)) == 2
  err = capsys.readouterr().err
  assert message in err and err.count("\n") == 1
  assert not (tmp_path / "new").exists()
