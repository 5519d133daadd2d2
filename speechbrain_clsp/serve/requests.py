"""From the body of an HTTP request to its fields: JSON, or multipart/form-data with files."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from speechbrain_clsp.serve.limits import Limits, RequestRejectedError
from speechbrain_clsp.serve.service import Clip
from speechbrain_clsp.serve.web import JSON, MULTIPART, media_type
from speechbrain_clsp.utils.reading import printable

Label = str | int | float


class Fields(BaseModel):
    """What all requests have in common.

    Example
    -------
    >>> Score.model_validate_json('{"audio": ["UklGRg=="], "captions": ["A man."]}').captions
    ['A man.']
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class AudioFields(Fields):
    """Clips, as base64 of files of any format or of .npy files; of a form, the files ``audio``."""

    audio: list[str | None] = Field(min_length=1, description="base64 of files, or of .npy arrays")
    sample_rate: int | list[int] | None = Field(
        None, description="Hz, of .npy arrays: of all, or of each"
    )


class Texts(Fields):
    """Captions."""

    texts: list[str] = Field(min_length=1)


class Score(AudioFields):
    """Clips and captions to compare."""

    captions: list[str] = Field(min_length=1)
    percentiles: bool = Field(False, description="how high scores are among the background's")


class Classify(AudioFields):
    """Clips and the classes to choose from; default: the model's own."""

    prompts: dict[str, str | list[str]] | list[str] | None = None


class TimelineFields(AudioFields):
    """One clip, and captions that its moments are compared with."""

    captions: list[str] = Field(min_length=1)
    window: float = Field(2.0, description="seconds embedded at once")
    hop: float = Field(0.5, description="seconds from one window to the next")


class RewardFields(AudioFields):
    """Clips and the caption of each; see StyleReward."""

    captions: list[Any] = Field(min_length=1, description="a description per clip")
    texts: list[str] | None = Field(None, description="what each clip should say")
    groups: list[Label] | None = Field(None, description="labels, for the scaling group")
    baseline: list[float] | None = Field(None, description="cosines, for improvement")
    scaling: str = Field("cosine", description="cosine, margin, group or improvement")
    guards: list[str] | None = Field(None, description="which ones; default: all")
    require: dict[str, str] | None = Field(None, description='such as {"gender": "female"}')


class SearchFields(Fields):
    """A caption or a clip, and filters, to search an index."""

    text: str | None = Field(None, description="a caption")
    audio: list[str | None] | None = Field(None, max_length=1, description="a clip")
    sample_rate: int | list[int] | None = Field(None, description="Hz, of a .npy array")
    like: str | None = Field(None, description="the id of a clip in the index")
    where: str | None = Field(None, description="such as gender = 'female' AND duration > 2")
    k: int = Field(10, ge=1, le=1000)


FieldsType = TypeVar("FieldsType", bound=Fields)


async def read_request(
    request: Request, kind: type[FieldsType], limits: Limits
) -> tuple[FieldsType, list[Clip]]:
    """Read a request.

    A form has its clips as the files ``audio``, and the other fields as JSON in the field
    ``request``.

    Arguments
    ---------
    request : Request
        What came.
    kind : type
        Which fields it must have.
    limits : Limits
        Of the number of clips.

    Returns
    -------
    fields : Fields
        Without ``audio``, where clips are files.
    clips : list of Clip
        In order. One whose base64 is wrong has a fault.

    Raises
    ------
    RequestRejectedError
        If the request is of another form; the reason names the field.
    """
    content_type = media_type(request)
    if content_type == JSON:
        fields = _parse(await request.body(), kind)
        audio = getattr(fields, "audio", None) or []
        limits.check_number(len(audio), "audio", limits.clips)
        contents = [_decode(text) for text in audio]
        names = [f"audio[{n}]" for n in range(len(audio))]
    elif content_type == MULTIPART:
        await request.body()  # within the limits; the form is parsed from memory
        try:
            most = limits.clips + 1000  # of a few too many, the first is named below
            form = await request.form(max_files=most, max_fields=8, max_part_size=1 << 24)
        except HTTPException as error:
            reason = str(error.detail)
            status = 413 if "Too many" in reason or "exceeded" in reason else 422
            raise RequestRejectedError(status, f"the form cannot be read: {reason}") from error
        files = [file for file in form.getlist("audio") if isinstance(file, UploadFile)]
        limits.check_number(len(files), "audio", limits.clips)
        text = form.get("request", "{}")
        if not isinstance(text, str):
            text = (await text.read()).decode(errors="replace")
        fields = _parse(text, kind, placeholder=[None] * len(files))
        contents = [(await file.read(), "") for file in files]
        names = [
            f"audio[{n}]" + (f" ({printable(file.filename)})" if file.filename else "")
            for n, file in enumerate(files)
        ]
        await form.close()
    else:
        raise RequestRejectedError(415, f"send {JSON} or {MULTIPART}, not {content_type!r}")
    rates = getattr(fields, "sample_rate", None)
    rates = rates if isinstance(rates, list) else [rates] * len(contents)
    if len(rates) != len(contents):
        raise RequestRejectedError(422, f"{len(rates)} sample_rate for {len(contents)} audio")
    clips = [
        Clip(content, name, rate, fault)
        for (content, fault), name, rate in zip(contents, names, rates)
    ]
    return fields, clips


def _parse(
    text: str | bytes, kind: type[FieldsType], placeholder: list[None] | None = None
) -> FieldsType:
    try:
        if placeholder is None:
            return kind.model_validate_json(text)
        found = json.loads(text)
        if placeholder and isinstance(found, dict):
            found["audio"] = placeholder
        return kind.model_validate_json(json.dumps(found))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        place = place.lstrip(".") or "the request"
        raise RequestRejectedError(422, f"{place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise RequestRejectedError(422, f"the request is not JSON: {error}") from error


def _decode(text: str | None) -> tuple[bytes, str]:
    """Return what base64 stands for, and what is wrong with it."""
    try:
        return base64.b64decode(text or "", validate=True), ""
    except (binascii.Error, ValueError) as error:
        return b"", f"is not base64: {error}"
