import pytest

from lsfa_jax.config import Config, dataset_names
from lsfa_jax.experiments import plan
from lsfa_jax.util.console import UserError


@pytest.mark.parametrize("name", plan.names())
def test_plans_are_right(name):
    read = plan.read(name)
    assert set(read.corpora) <= set(dataset_names())
    assert read.show in ("counts",) or read.all_variants()
    for claim in read.claims:
        assert claim.better != claim.worse


def test_the_experiments_of_the_paper_have_plans():
    figures = {"ablation", "sensitivity", "bins", "augmentation", "features"}
    assert figures | {"table2", "table3", "table4", "table5", "rivals", "baselines"} == set(plan.names())


def test_settings_are_divided_by_the_stage_that_reads_them_first():
    read = plan.read("ablation")
    settings = plan.split_settings(read, read.variants["D"])
    assert settings.first == {"psc": {"weight": 0.0}, "encoder": {"label_attention": False}}
    assert settings.later == {"transfer.method": "none"}
    swept = plan.read("sensitivity").all_variants()
    assert swept["pvae.head_threshold x 0.5"].scaled == {"pvae.head_threshold": 0.5}
    assert swept["adjust.num_augmented x 1"].scaled == {}
    assert plan.resolved(Config(), {"adjust.tau": 2.0}, {"pvae.head_threshold": 0.5}) == {
        "adjust.tau": 2.0, "pvae.head_threshold": 25
    }  # fmt: skip


def test_a_name_of_a_folder_is_short_and_different_for_different_values():
    assert plan.slug({}) == "base"
    assert plan.slug({"psc.weight": 0.0, "adjust.method": "crt"}) == "adjust.method=crt,psc.weight=0.0"
    long = [{f"setting{i}": value for i in range(20)} for value in (1, 2)]
    names = {plan.slug(values) for values in long}
    assert len(names) == 2
    assert all(len(name) < 120 for name in names)


def test_rows_of_the_paper():
    rows = dict(plan.paper_rows("5"))
    assert rows["LSFA"] == {"P@5": 58.95, "PSP@1": 42.5, "PSP@3": 48.03, "PSP@5": 50.69}
    assert list(plan.paper_rows("")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('titel = "x"', "titel: extra inputs"),
        ('metrics = ["P@7"]', "'P@7': expected a metric"),
        (
            '[variants.A]\nsettings.adjust.metod = "crt"',
            r"A: unknown setting adjust.metod \(did you mean adjust.method",
        ),
        ('[variants.A]\nscaled."psc.weight" = 2', "A: psc.weight belongs to the first stage"),
        ('show = "bars"', "show = 'bars' draws metrics"),
        ('show = "curve"\nmetrics = ["P@5"]', "show = 'curve' draws the values of a setting"),
        ('show = "features"\n[variants.A]\nsettings.adjust.epochs = 2', "A: adjust.epochs: of a later stage"),
        ('show = "features"\n[sweep]\n"adjust.epochs" = [2]', "adjust.epochs x 2: adjust.epochs: of a later stage"),
        ('[variants.A]\n[[claims]]\ntext = ""\nbetter = "A"\nworse = "B"\nmetrics = []', "'B' is no variant"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(tmp_path, text, message):
    file = tmp_path / "wrong.toml"
    file.write_text(f'title = "Wrong"\ncorpora = ["rcv1"]\n{text}\n')
    with pytest.raises(UserError, match=rf"wrong\.toml: .*{message}"):
        plan.read(str(file))


def test_an_unknown_plan_is_an_error_that_lists_those_that_there_are():
    with pytest.raises(UserError, match=r"tabel2: expected a plan, one of ablation, .* \(did you mean table2\?\)"):
        plan.read("tabel2")
