"""What a recipe names is an input, and an output's bucket must exist, too."""

from collections.abc import Callable

import pytest

from gcs_server import GcsServer
from kfp_server import KfpServer
from run_arguments import arguments_in, missing, states, submitting
from voxsrc import storage
from voxsrc.errors import ConfigError
from voxsrc.pipelines import input_check
from voxsrc.pipelines.inputs import recipe_places
from voxsrc.pipelines.package import Package
from voxsrc.recipes import shipped_recipes

# kfp's client says so each time that it is made
pytestmark = [
    pytest.mark.filterwarnings("ignore:This client only works with:FutureWarning"),
    pytest.mark.usefixtures("hurry"),
]

Run = Callable[..., int]


def test_a_recipe_is_a_name_or_a_file_whose_feature_sets_are_inputs(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket)
    assert "recipe" not in states(train, arguments | {"recipe": "ecapa_aam"})
    assert "does not exist in the cluster" in missing(train, arguments | {"recipe": "my/own.yaml"})["recipe"]

    recipe = f"{bucket}/own.yaml"
    storage.write_bytes(
        recipe,
        f"augment:\n  noise: {{probability: 0.5, features: {bucket}/noise}}\n"
        f"  music: {{probability: 0, features: {bucket}/unused}}\n".encode(),
    )
    arguments |= {"recipe": recipe}
    assert missing(train, arguments).keys() == {"recipe: augment.noise.features"}
    storage.write_bytes(f"{bucket}/noise/manifest.json", b"{}")
    assert missing(train, arguments) == {}
    added = {"overrides": "augment.music.probability=0.1"}
    assert missing(train, arguments | added).keys() == {"recipe: augment.music.features"}
    # the set that the run makes itself
    added["overrides"] += f"; augment.music.features={arguments['train_features']}/"
    assert missing(train, arguments | added) == {}
    with pytest.raises(ConfigError, match="overrides: override 'num_steps': expected KEY=VALUE"):
        recipe_places({}, "num_steps")


def test_the_model_that_a_training_begins_with_is_an_input(train: Package, bucket: str) -> None:
    model, recipe = f"{bucket}/before/model", f"{bucket}/tuning.yaml"
    storage.write_bytes(recipe, f"initial_model: {model}\n".encode())
    arguments = arguments_in(bucket)
    for given, key in (
        ({"overrides": f"initial_model={model}"}, "overrides: initial_model"),
        ({"recipe": recipe}, "recipe: initial_model"),
    ):
        (found,) = missing(train, arguments | given).items()
        assert found[0] == key
        assert found[1].startswith(
            f"{model} is no folder of a trained model, as it has no model.yaml; finish"
        )
    none = {"recipe": recipe, "overrides": "initial_model=null"}
    assert missing(train, arguments | none) == {}
    local = missing(train, arguments | {"overrides": "initial_model=runs/a/model"})
    assert "does not exist in the cluster" in local["overrides: initial_model"]
    storage.write_bytes(f"{model}/model.yaml", b"{}")
    assert missing(train, arguments | {"recipe": recipe}) == {}
    assert states(train, arguments | {"recipe": recipe})["recipe: initial_model"] == "ok"


def test_a_model_is_known_by_the_file_that_the_trainer_writes() -> None:
    stored = pytest.importorskip("voxsrc.models.stored")
    assert stored.DESCRIPTION_NAME == input_check.MODEL_DESCRIPTION


def test_recipes_that_come_with_the_trainer_name_no_place() -> None:
    recipe = pytest.importorskip("trainer.recipe")
    for name in shipped_recipes():
        assert recipe_places(recipe.Recipe.load(name).to_mapping(), "") == []


def test_the_bucket_of_outputs_is_asked_for_once(train: Package, gcs_server: GcsServer, bucket: str) -> None:
    arguments = arguments_in(bucket)
    outputs = ("train_features", "test_features", "training", "evaluation")

    gcs_server.clear()
    inside = {name: f"{bucket}/out/{name}" for name in outputs}
    assert missing(train, arguments | inside) == {}
    assert sum("prefix=out" in request.path for request in gcs_server.requests) == 1
    typo = "gs://voxsrc-no-such-bucket"
    found = missing(train, arguments | {name: f"{typo}/out/{name}" for name in outputs})
    assert found.keys() == set(outputs)
    assert all(text.startswith(f"{typo}: no such bucket") for text in found.values())
    assert all(text.endswith("; make it, or correct the name") for text in found.values())


def test_a_bucket_that_the_caller_may_not_list_is_a_warning(
    kfp_server: KfpServer,
    bucket: str,
    gcs_server: GcsServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = arguments_in(bucket)
    arguments |= {name: f"gs://other-bucket/{name}" for name in ("training", "evaluation")}
    gcs_server.fail("status", status=403, path="/b/other-bucket/o", times=9)
    assert voxsrc_pipeline(*submitting(arguments)) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: evaluation, training: not checked whether they exist")
    assert "storage.objects.list" in warning
    assert gcs_server.pending_faults == 8
