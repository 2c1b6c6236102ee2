"""Settings of the dataset: its source, its splits and the photos to leave out."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.settings import Settings


class SourceSettings(Settings):
    """Origin of the photos."""

    section: ClassVar[str] = "data"

    source: str = Field(
        "sample", min_length=1, description="sample, kaggle, oxford-pets, or a folder, zip or tar of photos"
    )
    state: str = Field("", description="digest of a folder's names, sizes and times; catsdogs pipeline writes it")
    per_class: int = Field(300, ge=1, description="pictures of each kind in the drawn sample")
    seed: int = Field(0, ge=0, description="seed of the drawn sample and of the photos shown")


class PrepareSettings(Settings):
    """Settings for turning a raw folder into a dataset.

    Where the folders name the splits, `validation` is the share of train that is cut off if there is no val, and
    `test` likewise. `exclusions` is the path of a CSV file with the columns ``path`` (relative to the raw folder) or
    ``sha256``, and ``reason``; where a column ``label`` names a class, the photo gets that label instead of being left
    out. Rows without such a photo are ignored. ``catsdogs data confirm`` writes such files.
    """

    section: ClassVar[str] = "prepare"

    validation: float = Field(0.15, gt=0, lt=1, description="share of each class for choosing")
    test: float = Field(0.15, gt=0, lt=1, description="share of each class for reporting, never for choosing")
    seed: int = Field(0, ge=0, description="seed of the split")
    min_side: int = Field(32, ge=1, description="shortest side in pixels; smaller photos are left out")
    exclusions: str = Field("", description="CSV with path or sha256 and reason of photos to leave out")

    @model_validator(mode="after")
    def _something_is_left_for_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise SettingsError(
                "prepare.validation", "together with 'test' it leaves nothing for training; use smaller shares"
            )
        return self
