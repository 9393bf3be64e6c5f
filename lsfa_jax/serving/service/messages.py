"""What the API takes and returns, as JSON. The descriptions are those of the OpenAPI document."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lsfa_jax.config import nearest
from lsfa_jax.serving.selection import TOP, TOP_OF_THRESHOLD, Threshold
from lsfa_jax.serving.service.models import TOPS

# Characters that are repeated of the name of a field that there is not.
_NAME = 40


class PredictRequest(BaseModel):
    """Texts, and which of their labels are asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    text: str | None = Field(None, description="a text")
    texts: list[str] | None = Field(None, description="a list of texts, in place of text")
    model: str = Field("", description="the name of a model; by default the first")
    top: Literal["auto"] | Annotated[int, Field(ge=1, le=TOPS[-1])] = Field(
        "auto",
        description=f"labels a text at most, from 1 to {TOPS[-1]:,}; auto: {TOP}, with a threshold {TOP_OF_THRESHOLD}",
    )
    threshold: Threshold = Field(
        "none", description="none; auto, the model's threshold; or the least probability, from 0 to 1"
    )

    @model_validator(mode="after")
    def _has_texts(self) -> "PredictRequest":
        if (self.text is None) == (self.texts is None):
            raise ValueError("expected one of text and texts")
        return self

    @property
    def all_texts(self) -> list[str]:
        """The texts, one or several."""
        return [self.text] if self.text is not None else self.texts or []


class ExplainRequest(PredictRequest):
    """Texts whose labels are to be explained."""

    top: Literal["auto"] | Annotated[int, Field(ge=1, le=TOPS[1])] = Field(
        "auto",
        description=f"labels a text at most, from 1 to {TOPS[1]:,}; auto: {TOP}, with a threshold {TOP_OF_THRESHOLD}",
    )


class Labels(BaseModel):
    """The labels of a text, best first."""

    labels: list[str] = Field(description="names")
    probabilities: list[float] = Field(description="of each label independently: they do not sum to one")


class Predictions(BaseModel):
    """The labels of each text."""

    model: str = Field(description="the name of the model")
    predictions: list[Labels] = Field(
        description="for each text, in their order: labels, best first, and their probabilities"
    )


class ExplainedLabels(Labels):
    """The labels of a text, and the words that speak for each of them."""

    text: str = Field(description="as the model reads it")
    words: list[tuple[int, int]] = Field(
        description="start and end in text of each word that the model reads, in Unicode code points"
    )
    attention: list[list[float]] = Field(description="for each label the share of its attention on each word")
    votes: list[list[tuple[str, float]]] | None = Field(
        None, description="for each label the words by which the linear model voted for it, of a fused model"
    )


class Explanations(BaseModel):
    """The explained labels of each text."""

    model: str = Field(description="the name of the model")
    explanations: list[ExplainedLabels] = Field(
        description="for each text, in their order: labels, probabilities, text as the model reads it, words (start "
        "and end of each), attention (for each label the share of each word), votes of the linear model"
    )


class Label(BaseModel):
    """A label of a model."""

    name: str = Field(description="its name")
    documents: int = Field(description="training documents")
    group: Literal["head", "tail"] = Field(description="tail: fewer training documents than head_threshold")


class LabelList(BaseModel):
    """The labels of a model, most frequent first."""

    model: str = Field(description="the name of the model")
    threshold: float = Field(description="the probability from which a label is predicted")
    head_threshold: int = Field(description="N_t: labels with fewer training documents are the tail")
    labels: list[Label] = Field(description="each with name, documents and group (head or tail)")


class ModelState(BaseModel):
    """A model that is served."""

    name: str = Field(description="its name")
    num_labels: int = Field(description="its number of labels")
    problem: str = Field(description="why its changed folder could not be read; the model before is served; or empty")


class Health(BaseModel):
    """Whether the service answers, and its models."""

    status: Literal["ok"] = Field(description="ok")
    models: list[ModelState] = Field(
        description="name, num_labels, and problem: why the newest version could not be read, or empty"
    )


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="the reason")


def first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """Returns what is wrong first with a request of a kind, without the content of its texts."""
    first = error.errors(include_input=False, include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
    if not first["loc"]:
        return f"{first['msg'].removeprefix('Value error, ')}" if first["type"] == "value_error" else "not an object"
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        name = name[:_NAME]
        return f"{name}: unknown field{nearest(name, list(kind.model_fields))}; expected {', '.join(kind.model_fields)}"
    return f"{name}: expected {kind.model_fields[name].description}"
