"""Settings of training, in one validated object."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.settings import Settings

BASELINE = "baseline_cnn"
RENAMED = {"head_c": "logistic_regression_c", "averaging": "ema_decay", "blend": "weight_interpolation"}
"""Earlier names of settings, still read from params.yaml and from trained models."""


class TrainingSettings(Settings):
    """Settings for training one model. The same settings, data and machine give the same metrics."""

    section: ClassVar[str] = "train"

    model: str = Field(
        "efficientnet_lite0",
        min_length=1,
        description="baseline_cnn, efficientnet_lite0, any name of timm, or torchvision:NAME",
    )
    method: Literal["frozen", "finetune", "scratch"] = Field(
        "frozen", description="frozen: a head on cached features; finetune: every layer; scratch: for the baseline"
    )
    size: int = Field(0, ge=0, le=1024, description="height and width of the input in pixels; 0: the network's own")
    epochs: int = Field(2, ge=1, le=1000, description="passes over the training photos; unused when frozen")
    teacher_size: int = Field(
        0, ge=0, le=1024, description="input size of a fine-tuned teacher to distil from; 0: no teacher"
    )
    teacher_epochs: int = Field(4, ge=1, le=1000, description="passes over the training photos for the teacher")
    batch_size: int = Field(32, ge=2, le=4096, description="photos in an optimizer step")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak learning rate, that of the head")
    weight_decay: float = Field(0.01, ge=0, le=10, description="weight decay of AdamW")
    layer_decay: float = Field(0.75, gt=0, le=1, description="factor on the rate from each block to the one below")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights a step; 0: no averaging")
    weight_interpolation: float = Field(
        1.0, gt=0, le=1, description="share of fine-tuned weights in the kept backbone; the rest are pretrained"
    )
    logistic_regression_c: float = Field(
        0.03, gt=0, le=1e6, description="inverse strength of the head's L2 penalty, C in scikit-learn"
    )
    crop_scale: float = Field(0.6, gt=0, le=1, description="smallest share of the photo that a random crop keeps")
    jitter: float = Field(0.2, ge=0, le=1, description="how far brightness, contrast and saturation vary")
    weights: Literal["fp32", "fp16"] = Field("fp16", description="precision of the stored weights: fp16 or fp32")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of training: fp32, bf16, or auto, which is bf16 where that is fast"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = {**values}
        for earlier, name in RENAMED.items():
            if earlier in values and name not in values:
                values[name] = values.pop(earlier)
        return values

    @model_validator(mode="after")
    def _method_suits_model(self) -> Self:
        if (self.model == BASELINE) != (self.method == "scratch"):
            raise SettingsError(
                "train.method",
                "'scratch' goes with model 'baseline_cnn', 'frozen' and 'finetune' with any other",
            )
        if self.size and self.model == BASELINE:
            raise SettingsError("train.size", "model 'baseline_cnn' has an input of 224 pixels; leave it at 0")
        if self.teacher_size and self.method != "finetune":
            raise SettingsError("train.teacher_size", "it goes with method 'finetune'; leave it at 0")
        if self.weight_interpolation < 1 and self.method != "finetune":
            raise SettingsError("train.weight_interpolation", "it goes with method 'finetune'; leave it at 1")
        if 0 < self.teacher_size < self.size:
            raise SettingsError("train.teacher_size", "a teacher sees more than its pupil; it must not be below size")
        return self

    @property
    def teacher(self) -> "TrainingSettings | None":
        """Settings of the teacher; None where there is none."""
        if not self.teacher_size:
            return None
        return self.model_copy(
            update={
                "size": self.teacher_size,
                "epochs": self.teacher_epochs,
                "teacher_size": 0,
                "weight_interpolation": 1.0,
            }
        )


def baseline_settings(epochs: int, seed: int = 0, **overrides: Any) -> TrainingSettings:
    """Build the baseline's settings: from scratch, one cycle to 6e-4, no averaging."""
    baseline: dict[str, Any] = {
        "model": BASELINE,
        "method": "scratch",
        "epochs": epochs,
        "learning_rate": 6e-4,
        "ema_decay": 0.0,
        "seed": seed,
    }
    return TrainingSettings.checked(**{**baseline, **overrides})
