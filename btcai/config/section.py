"""What every section of the settings is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Cannot be changed, and takes no setting that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
