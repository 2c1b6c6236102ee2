import json
import subprocess
import sys
from pathlib import Path

import pytest

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.training.settings import TrainingSettings, baseline_settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", "many"),
        ("learning_rate", -1),
        ("layer_decay", 1.5),
        ("ema_decay", 1),
        ("seed", -1),
        ("weights", "int8"),
        ("method", "magic"),
        ("logistic_regression_c", 0),
        ("logistic_regression_c", float("nan")),
        ("batch_size", 1),
    ],
)
def test_a_bad_value_is_refused_with_its_field(field, value):
    with pytest.raises(SettingsError, match=f"'train.{field}'") as caught:
        TrainingSettings.checked(**{field: value})
    assert caught.value.field == f"train.{field}"
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_refused_by_name():
    with pytest.raises(SettingsError, match="'train.epocs': there is no such setting"):
        TrainingSettings.checked(epocs=3)


@pytest.mark.parametrize(("model", "method"), [("baseline_cnn", "frozen"), ("efficientnet_lite0", "scratch")])
def test_a_method_that_does_not_suit_the_model_is_refused(model, method):
    with pytest.raises(SettingsError, match="goes with model"):
        TrainingSettings.checked(model=model, method=method)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"teacher_size": 288}, "goes with method 'finetune'"),
        ({"weight_interpolation": 0.5}, "goes with method 'finetune'"),
        ({"teacher_size": 160, "size": 192, "method": "finetune"}, "sees more than its pupil"),
    ],
)
def test_settings_that_need_fine_tuning_or_a_larger_teacher_say_so(values, problem):
    with pytest.raises(SettingsError, match=problem):
        TrainingSettings.checked(**values)


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrainingSettings().epochs = 3


def test_the_baseline_trains_from_scratch():
    settings = baseline_settings(7, seed=3)
    assert (settings.model, settings.method, settings.epochs, settings.seed) == ("baseline_cnn", "scratch", 7, 3)


def test_the_record_of_a_model_trained_before_settings_were_renamed_is_read():
    from catsdogs_lib.training.checkpoint import TrainingRecord

    text = Path(__file__).with_name("training_with_earlier_names.json").read_text()
    assert '"head_c": 0.03' in text
    record = TrainingRecord.from_json(json.loads(text))
    assert record.settings == TrainingSettings(logistic_regression_c=0.03, ema_decay=0.99, weight_interpolation=1.0)
    assert json.loads(json.dumps(record.to_json()))["settings"] == TrainingSettings().model_dump()


def test_settings_need_no_torch():
    code = "import sys; import catsdogs_lib.training.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
