"""Settings: environment variables that start with MISFIT_, read once into one typed object."""

from __future__ import annotations

import difflib
import logging
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "MISFIT_"
BUNDLES = Path(__file__).parent / "bundles"
MIB = 1024 * 1024
# Names of bundles stand in paths, and in labels of metrics, of which there are only so many.
BUNDLE_NAME, MOST_BUNDLES = re.compile("[a-z0-9][a-z0-9_-]{0,39}"), 16
# What a browser sends as Origin (RFC 6454): no path, and the host in ASCII.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

logger = logging.getLogger(__name__)


class RequestLimits(BaseModel):
    """Limits of the requests to one bundle: what is left out is as for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_images: int | None = Field(default=None, gt=0)
    max_body_bytes: int | None = Field(default=None, gt=0)
    max_image_pixels: int | None = Field(default=None, gt=0)
    max_stream_images: int | None = Field(default=None, gt=0)
    timeout_seconds: float | None = Field(default=None, gt=0)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    bundle: str = Field(default="shapes3d", description="a bundle shipped in service/bundles, or a path to one")
    bundles: Annotated[dict[str, str], NoDecode] = Field(
        default={},
        description="more bundles beside that one, with commas between: NAME of a shipped one, or NAME=PATH; each is "
        "at /models/NAME/score and so on",
    )
    bundle_limits: dict[str, RequestLimits] = Field(
        default={},
        description='lower limits of the requests to some of these, as JSON: {"NAME": {"max_images": 500}}, or '
        "max_body_bytes, max_image_pixels, max_stream_images, timeout_seconds",
    )
    require_gpu: bool = Field(default=False, description="refuse to start unless the networks run on a GPU")
    inference_process: Literal["auto", "api", "own"] = Field(
        default="auto",
        description="where the networks run: in the API's process (api), or in a process of their own (own); auto is "
        "api where there is one API worker",
    )
    max_images: int = Field(default=10_000, gt=0, description="images in one request, reference included")
    max_body_bytes: int = Field(default=256 * MIB, gt=0, description="bytes of one body, also once unpacked")
    precision: Literal["auto", "fp32", "int8"] = Field(
        default="fp32",
        description="what encoders compute in; auto is int8 where that loses nothing and this CPU has it",
    )
    max_image_pixels: int = Field(default=64_000_000, gt=0, description="pixels of one image before resizing")
    max_decode_bytes: int = Field(default=512 * MIB, gt=0, description="memory that decoding one image may take")
    max_decode_ratio: int = Field(
        default=96, gt=0, description="bytes that decoding one image may take, if more than 96 MiB, for each byte sent"
    )
    max_decode_bytes_in_flight: int = Field(
        default=1024 * MIB, gt=0, description="memory that all images take that wait to be decoded"
    )
    decode_seconds: float = Field(
        default=1.0, gt=0, description="CPU that decoding a request's images may take, and again for each MiB sent"
    )
    max_values: int = Field(
        default=500_000, gt=0, description="numbers, names, lists and images that one body is made of, arrays aside"
    )
    max_rows_in_flight: int = Field(default=20_000, gt=0, description="images being worked on in all requests")
    max_bytes_in_flight: int = Field(
        default=1024 * MIB, gt=0, description="bytes of all bodies, of the work on them and of its answers until sent"
    )
    timeout_seconds: float = Field(default=300, gt=0, description="the longest that one request may take")
    body_seconds: float = Field(
        default=60, gt=0, description="the longest that one HTTP body or gRPC message may take to come"
    )
    max_stream_images: int = Field(default=100_000, gt=0, description="images in one gRPC stream, reference included")
    grpc_host: str = Field(default="0.0.0.0", description="the address that gRPC listens on")
    grpc_port: int = Field(default=3001, ge=0, le=65535, description="the port that gRPC listens on; 0 turns gRPC off")
    grpc_tls_cert: Path | None = Field(default=None, description="PEM file with gRPC's certificate chain: serve TLS")
    grpc_tls_key: Path | None = Field(default=None, description="PEM file with its private key")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="origins whose pages may call the service from a browser, with commas between; * is all"
    )
    tokens_file: Path | None = Field(
        default=None, description="file with the SHA-256 of each bearer token that is let in, one on a line"
    )
    log_format: Literal["plain", "json"] = Field(default="plain", description="how lines of the log are written")
    tracing: bool = Field(default=False, description="export OpenTelemetry traces, to where OTEL_ variables say")

    @field_validator("bundles", mode="before")
    @classmethod
    def _split_bundles(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        bundles: dict[str, str] = {}
        for text in filter(None, map(str.strip, value.split(","))):
            name, _, path = (part.strip() for part in text.partition("="))
            if name in bundles:
                raise ValueError(f"{name!r} names two bundles: give each a name of its own")
            bundles[name] = path or name
        return bundles

    @field_validator("bundles")
    @classmethod
    def _have_plain_names(cls, bundles: dict[str, str]) -> dict[str, str]:
        for name in bundles:
            if not BUNDLE_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no name: write small letters, digits, - and _, at most 40, as in mine=/bundles/mine"
                )
        if len(bundles) > MOST_BUNDLES:
            raise ValueError(f"{len(bundles)} bundles: at most {MOST_BUNDLES} are served beside the first")
        return bundles

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = [origin.strip().lower().removesuffix("/") for origin in value.split(",")]
        # A browser leaves out the port that its scheme implies.
        usual = {"https": ":443", "http": ":80"}
        return tuple(each.removesuffix(usual.get(each.partition(":")[0], "/")) for each in origins if each)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin not in ("*", "null") and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: write scheme and host, and the port where it is not the usual one, as "
                    "in https://app.example.com,http://localhost:8080, or * for every page"
                )
        return origins

    @model_validator(mode="after")
    def _limits_of_bundles_are_lower(self) -> Self:
        for name, limits in self.bundle_limits.items():
            if name not in self.bundles:
                raise ValueError(f"MISFIT_BUNDLE_LIMITS names {name!r}, which is none of MISFIT_BUNDLES")
            for limit, value in limits.model_dump(exclude_none=True).items():
                if value > (of_all := getattr(self, limit)):
                    raise ValueError(
                        f"MISFIT_BUNDLE_LIMITS raises {limit} of {name!r} to {value} from {of_all}, which holds for "
                        f"all: raise MISFIT_{limit.upper()}, and lower it for the other bundles"
                    )
        return self

    @model_validator(mode="after")
    def _one_full_request_fits(self) -> Self:
        if self.max_rows_in_flight < self.max_images or self.max_bytes_in_flight < self.max_body_bytes:
            raise ValueError(
                "what may be in flight is less than one request may hold: raise MISFIT_MAX_ROWS_IN_FLIGHT and "
                "MISFIT_MAX_BYTES_IN_FLIGHT to at least MISFIT_MAX_IMAGES and MISFIT_MAX_BODY_BYTES"
            )
        return self

    @model_validator(mode="after")
    def _all_images_may_come_one_by_one(self) -> Self:
        if self.max_values < 2 * self.max_images:  # an image and its name are two values
            raise ValueError("raise MISFIT_MAX_VALUES to at least twice MISFIT_MAX_IMAGES")
        return self

    @model_validator(mode="after")
    def _files_can_be_read(self) -> Self:
        if (self.grpc_tls_cert is None) != (self.grpc_tls_key is None):
            raise ValueError("TLS takes both MISFIT_GRPC_TLS_CERT and MISFIT_GRPC_TLS_KEY")
        for file in (self.grpc_tls_cert, self.grpc_tls_key, self.tokens_file):
            if file is not None and not os.access(file, os.R_OK):
                raise ValueError(f"{file} cannot be read")
        return self

    @property
    def bundle_directory(self) -> Path:
        """Return the directory of `bundle`: a shipped bundle of that name, else the path itself."""
        return find_bundle(self.bundle)

    @property
    def more_bundles(self) -> dict[str, Path]:
        """Return the directories of `bundles` by their names."""
        return {name: find_bundle(path) for name, path in self.bundles.items()}

    def of_bundle(self, name: str) -> Settings:
        """Return the settings for requests to one of `bundles`, or to the first bundle, whose name is ""."""
        limits = self.bundle_limits.get(name, RequestLimits())
        return self.model_copy(update=limits.model_dump(exclude_none=True))


def find_bundle(bundle: str) -> Path:
    """Return the directory of a bundle: a shipped one of that name, else the path itself."""
    shipped = BUNDLES / bundle
    return shipped if Path(bundle).name == bundle and shipped.is_dir() else Path(bundle)


def warn_of_unknown_variables() -> None:
    """Log each MISFIT_ variable that is not a setting. Most likely its name is misspelt."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.startswith(PREFIX) and name not in names:
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(names)}."
            logger.warning("%s is not a setting of misfit and has no effect; %s", name, hint)


def describe_problems(error: ValidationError) -> str:
    """Return in one line which variables are wrong, what came, and what was expected."""
    problems = []
    for problem in error.errors(include_url=False):
        text = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            text = f"{PREFIX}{str(problem['loc'][0]).upper()} is {problem['input']!r}: {text[:1].lower()}{text[1:]}"
        problems.append(text)
    return f"{'; '.join(problems)}."
