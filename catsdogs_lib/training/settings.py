"""All that decides how a model is trained, in one validated object."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from catsdogs_lib.common.errors import SettingsError

Method = Literal["frozen", "finetune", "scratch"]

BASELINE = "baseline_cnn"


class TrainingSettings(BaseModel):
    """How one model is trained. The same settings, data and machine give the same figures.

    Use `TrainingSettings.checked` for values that a person typed: it names the field that is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: str = Field(
        "efficientnet_lite0",
        min_length=1,
        description="baseline_cnn, efficientnet_lite0, or any name of timm, or of torchvision behind 'torchvision:'",
    )
    method: Method = Field("frozen", description="head on frozen features, whole network from there, or from scratch")
    size: int = Field(0, ge=0, le=1024, description="height and width of the input, pixels; 0: the network's own")
    teacher_size: int = Field(
        0,
        ge=0,
        le=1024,
        description="pixels that a teacher sees, which is fine-tuned first and "
        "whose answers are learned then; 0: no teacher, labels are learned",
    )
    teacher_epochs: int = Field(4, ge=1, le=1000, description="passes over the training photos for the teacher")
    epochs: int = Field(2, ge=1, le=1000, description="passes over the training photos; unused when frozen")
    batch_size: int = Field(32, ge=2, le=4096, description="photos in a step")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="the highest rate, that of the head")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's")
    layer_decay: float = Field(0.75, gt=0, le=1, description="factor on the rate from each block to the one below")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay a step of the averaged weights; 0 for none")
    weight_interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the fine-tuned weights in the kept backbone; the rest are the pretrained ones",
    )
    logistic_regression_c: float = Field(
        0.03, gt=0, le=1e6, description="inverse strength of the head's L2 penalty, as in sklearn"
    )
    crop_scale: float = Field(0.6, gt=0, le=1, description="smallest share of the photo that a random crop keeps")
    jitter: float = Field(0.2, ge=0, le=1, description="how far brightness, contrast and saturation vary")
    weights: Literal["fp32", "fp16"] = Field("fp16", description="how the trained weights are stored")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic; auto: bf16 where it is fast")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of everything random")

    @model_validator(mode="after")
    def _method_suits_model(self) -> Self:
        if (self.model == BASELINE) != (self.method == "scratch"):
            raise ValueError("method 'scratch' goes with model 'baseline_cnn', 'frozen' and 'finetune' with the others")
        if self.size and self.model == BASELINE:
            raise ValueError("model 'baseline_cnn' has an input of 224 pixels; leave size at 0")
        if self.teacher_size and self.method != "finetune":
            raise ValueError("teacher_size goes with method 'finetune'; leave it at 0")
        if self.weight_interpolation < 1 and self.method != "finetune":
            raise ValueError("weight_interpolation goes with method 'finetune'; leave it at 1")
        if 0 < self.teacher_size < self.size:
            raise ValueError("a teacher sees more than its pupil: teacher_size must not be below size")
        return self

    @property
    def teacher(self) -> "TrainingSettings | None":
        """How the teacher is trained, where there is one."""
        if not self.teacher_size:
            return None
        change = {
            "size": self.teacher_size,
            "epochs": self.teacher_epochs,
            "teacher_size": 0,
            "weight_interpolation": 1.0,
        }
        return self.model_copy(update=change)

    @classmethod
    def checked(cls, **values: Any) -> "TrainingSettings":
        """Build settings from `values`.

        Raises
        ------
        SettingsError
            One sentence that names the first field that is wrong.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "method"
            problem = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
            given = f" (given: {first['input']!r})" if first["loc"] else ""
            raise SettingsError(f"train.{field}", f"{problem}{given}") from None


def baseline_settings(epochs: int, seed: int = 0, **overrides: Any) -> TrainingSettings:
    """Build the baseline's settings: from scratch, one cycle to 6e-4, no averaging."""
    values: dict[str, Any] = {
        "model": BASELINE,
        "method": "scratch",
        "epochs": epochs,
        "learning_rate": 6e-4,
        "ema_decay": 0.0,
        "seed": seed,
    }
    return TrainingSettings.checked(**{**values, **overrides})
