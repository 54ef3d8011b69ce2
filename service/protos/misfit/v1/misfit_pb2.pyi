from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Resize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESIZE_UNSPECIFIED: _ClassVar[Resize]
    RESIZE_FIT: _ClassVar[Resize]
    RESIZE_REJECT: _ClassVar[Resize]

class Range(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANGE_UNSPECIFIED: _ClassVar[Range]
    RANGE_FILE: _ClassVar[Range]
    RANGE_BATCH: _ClassVar[Range]
    RANGE_FULL: _ClassVar[Range]

class Pages(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAGES_UNSPECIFIED: _ClassVar[Pages]
    PAGES_FIRST: _ClassVar[Pages]
    PAGES_ALL: _ClassVar[Pages]

class Estimator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ESTIMATOR_UNSPECIFIED: _ClassVar[Estimator]
    ESTIMATOR_LEAVE_ONE_OUT: _ClassVar[Estimator]
    ESTIMATOR_ROBUST: _ClassVar[Estimator]
    ESTIMATOR_MIXTURE: _ClassVar[Estimator]
    ESTIMATOR_LEDOIT_WOLF: _ClassVar[Estimator]
    ESTIMATOR_OAS: _ClassVar[Estimator]
    ESTIMATOR_MCD: _ClassVar[Estimator]
    ESTIMATOR_DENSITY_RATIO: _ClassVar[Estimator]
    ESTIMATOR_ENSEMBLE: _ClassVar[Estimator]

class Foreign(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FOREIGN_UNSPECIFIED: _ClassVar[Foreign]
    FOREIGN_FLAG: _ClassVar[Foreign]
    FOREIGN_OFF: _ClassVar[Foreign]

class Attributions(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTRIBUTIONS_UNSPECIFIED: _ClassVar[Attributions]
    ATTRIBUTIONS_NONE: _ClassVar[Attributions]
    ATTRIBUTIONS_TOP: _ClassVar[Attributions]
    ATTRIBUTIONS_ALL: _ClassVar[Attributions]

class HeatMaps(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAT_MAPS_UNSPECIFIED: _ClassVar[HeatMaps]
    HEAT_MAPS_NONE: _ClassVar[HeatMaps]
    HEAT_MAPS_FLAGGED: _ClassVar[HeatMaps]
    HEAT_MAPS_ALL: _ClassVar[HeatMaps]

class Duplicates(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DUPLICATES_UNSPECIFIED: _ClassVar[Duplicates]
    DUPLICATES_OFF: _ClassVar[Duplicates]
    DUPLICATES_GROUPS: _ClassVar[Duplicates]

class EditKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EDIT_KIND_UNSPECIFIED: _ClassVar[EditKind]
    EDIT_KIND_COUNTERFACTUAL: _ClassVar[EditKind]
    EDIT_KIND_PROJECT: _ClassVar[EditKind]
    EDIT_KIND_SET: _ClassVar[EditKind]
    EDIT_KIND_SHIFT: _ClassVar[EditKind]

class Unit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIT_UNSPECIFIED: _ClassVar[Unit]
    UNIT_LATENT: _ClassVar[Unit]
    UNIT_SD: _ClassVar[Unit]
    UNIT_QUANTILE: _ClassVar[Unit]

class SpanOf(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPAN_OF_UNSPECIFIED: _ClassVar[SpanOf]
    SPAN_OF_CONTEXT: _ClassVar[SpanOf]
    SPAN_OF_POPULATION: _ClassVar[SpanOf]

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_EMPIRICAL: _ClassVar[Method]
    METHOD_GAUSSIAN: _ClassVar[Method]
RESIZE_UNSPECIFIED: Resize
RESIZE_FIT: Resize
RESIZE_REJECT: Resize
RANGE_UNSPECIFIED: Range
RANGE_FILE: Range
RANGE_BATCH: Range
RANGE_FULL: Range
PAGES_UNSPECIFIED: Pages
PAGES_FIRST: Pages
PAGES_ALL: Pages
ESTIMATOR_UNSPECIFIED: Estimator
ESTIMATOR_LEAVE_ONE_OUT: Estimator
ESTIMATOR_ROBUST: Estimator
ESTIMATOR_MIXTURE: Estimator
ESTIMATOR_LEDOIT_WOLF: Estimator
ESTIMATOR_OAS: Estimator
ESTIMATOR_MCD: Estimator
ESTIMATOR_DENSITY_RATIO: Estimator
ESTIMATOR_ENSEMBLE: Estimator
FOREIGN_UNSPECIFIED: Foreign
FOREIGN_FLAG: Foreign
FOREIGN_OFF: Foreign
ATTRIBUTIONS_UNSPECIFIED: Attributions
ATTRIBUTIONS_NONE: Attributions
ATTRIBUTIONS_TOP: Attributions
ATTRIBUTIONS_ALL: Attributions
HEAT_MAPS_UNSPECIFIED: HeatMaps
HEAT_MAPS_NONE: HeatMaps
HEAT_MAPS_FLAGGED: HeatMaps
HEAT_MAPS_ALL: HeatMaps
DUPLICATES_UNSPECIFIED: Duplicates
DUPLICATES_OFF: Duplicates
DUPLICATES_GROUPS: Duplicates
EDIT_KIND_UNSPECIFIED: EditKind
EDIT_KIND_COUNTERFACTUAL: EditKind
EDIT_KIND_PROJECT: EditKind
EDIT_KIND_SET: EditKind
EDIT_KIND_SHIFT: EditKind
UNIT_UNSPECIFIED: Unit
UNIT_LATENT: Unit
UNIT_SD: Unit
UNIT_QUANTILE: Unit
SPAN_OF_UNSPECIFIED: SpanOf
SPAN_OF_CONTEXT: SpanOf
SPAN_OF_POPULATION: SpanOf
METHOD_UNSPECIFIED: Method
METHOD_EMPIRICAL: Method
METHOD_GAUSSIAN: Method

class Images(_message.Message):
    __slots__ = ("files", "tensor", "ids")
    FILES_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    files: ImageFiles
    tensor: ImageTensor
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, files: _Optional[_Union[ImageFiles, _Mapping]] = ..., tensor: _Optional[_Union[ImageTensor, _Mapping]] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ImageFiles(_message.Message):
    __slots__ = ("contents",)
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, contents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ImageTensor(_message.Message):
    __slots__ = ("shape", "data", "dtype")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    dtype: str
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., dtype: _Optional[str] = ...) -> None: ...

class ScoreOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign", "threshold", "fdr", "nearest", "duplicates", "attributions", "top")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FDR_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    threshold: float
    fdr: float
    nearest: int
    duplicates: Duplicates
    attributions: Attributions
    top: int
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ..., threshold: _Optional[float] = ..., fdr: _Optional[float] = ..., nearest: _Optional[int] = ..., duplicates: _Optional[_Union[Duplicates, str]] = ..., attributions: _Optional[_Union[Attributions, str]] = ..., top: _Optional[int] = ...) -> None: ...

class ExplainOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign", "threshold", "fdr", "nearest", "duplicates", "attributions", "top", "heat_maps", "interactions")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FDR_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAPS_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    threshold: float
    fdr: float
    nearest: int
    duplicates: Duplicates
    attributions: Attributions
    top: int
    heat_maps: HeatMaps
    interactions: bool
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ..., threshold: _Optional[float] = ..., fdr: _Optional[float] = ..., nearest: _Optional[int] = ..., duplicates: _Optional[_Union[Duplicates, str]] = ..., attributions: _Optional[_Union[Attributions, str]] = ..., top: _Optional[int] = ..., heat_maps: _Optional[_Union[HeatMaps, str]] = ..., interactions: _Optional[bool] = ...) -> None: ...

class FitOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ...) -> None: ...

class EditOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign", "threshold", "fdr", "edit", "which", "latents", "values", "unit")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FDR_FIELD_NUMBER: _ClassVar[int]
    EDIT_FIELD_NUMBER: _ClassVar[int]
    WHICH_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    threshold: float
    fdr: float
    edit: EditKind
    which: _containers.RepeatedScalarFieldContainer[str]
    latents: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.ScalarMap[str, float]
    unit: Unit
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ..., threshold: _Optional[float] = ..., fdr: _Optional[float] = ..., edit: _Optional[_Union[EditKind, str]] = ..., which: _Optional[_Iterable[str]] = ..., latents: _Optional[_Iterable[str]] = ..., values: _Optional[_Mapping[str, float]] = ..., unit: _Optional[_Union[Unit, str]] = ...) -> None: ...

class TraverseOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign", "threshold", "fdr", "latents", "plane", "steps", "span", "span_of", "start")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FDR_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PLANE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    SPAN_OF_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    threshold: float
    fdr: float
    latents: _containers.RepeatedScalarFieldContainer[str]
    plane: bool
    steps: int
    span: float
    span_of: SpanOf
    start: str
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ..., threshold: _Optional[float] = ..., fdr: _Optional[float] = ..., latents: _Optional[_Iterable[str]] = ..., plane: _Optional[bool] = ..., steps: _Optional[int] = ..., span: _Optional[float] = ..., span_of: _Optional[_Union[SpanOf, str]] = ..., start: _Optional[str] = ...) -> None: ...

class InterpolateOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign", "threshold", "fdr", "start", "end", "frames")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FDR_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    threshold: float
    fdr: float
    start: str
    end: str
    frames: int
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ..., threshold: _Optional[float] = ..., fdr: _Optional[float] = ..., start: _Optional[str] = ..., end: _Optional[str] = ..., frames: _Optional[int] = ...) -> None: ...

class SampleOptions(_message.Message):
    __slots__ = ("resize", "range", "pages", "estimator", "foreign", "threshold", "fdr", "count", "method", "seed")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FDR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    estimator: Estimator
    foreign: Foreign
    threshold: float
    fdr: float
    count: int
    method: Method
    seed: int
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ..., estimator: _Optional[_Union[Estimator, str]] = ..., foreign: _Optional[_Union[Foreign, str]] = ..., threshold: _Optional[float] = ..., fdr: _Optional[float] = ..., count: _Optional[int] = ..., method: _Optional[_Union[Method, str]] = ..., seed: _Optional[int] = ...) -> None: ...

class EncodeOptions(_message.Message):
    __slots__ = ("resize", "range", "pages")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    resize: Resize
    range: Range
    pages: Pages
    def __init__(self, resize: _Optional[_Union[Resize, str]] = ..., range: _Optional[_Union[Range, str]] = ..., pages: _Optional[_Union[Pages, str]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: ScoreOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: ScoreOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[ScoreOptions, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: ExplainOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[ExplainOptions, _Mapping]] = ...) -> None: ...

class FitRequest(_message.Message):
    __slots__ = ("images", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: FitOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[FitOptions, _Mapping]] = ...) -> None: ...

class EditRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: EditOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[EditOptions, _Mapping]] = ...) -> None: ...

class TraverseRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: TraverseOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[TraverseOptions, _Mapping]] = ...) -> None: ...

class InterpolateRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: InterpolateOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[InterpolateOptions, _Mapping]] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("images", "reference", "contexts", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    reference: Images
    contexts: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    options: SampleOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., reference: _Optional[_Union[Images, _Mapping]] = ..., contexts: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., options: _Optional[_Union[SampleOptions, _Mapping]] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("images", "options")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    images: Images
    options: EncodeOptions
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., options: _Optional[_Union[EncodeOptions, _Mapping]] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("latents",)
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    latents: _containers.RepeatedCompositeFieldContainer[Latents]
    def __init__(self, latents: _Optional[_Iterable[_Union[Latents, _Mapping]]] = ...) -> None: ...

class Latents(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("code", "message", "hint")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    hint: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("bundle_id", "model", "context", "items", "groups", "duplicates")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    model: str
    context: ScoredContext
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    groups: _containers.RepeatedCompositeFieldContainer[ImageGroup]
    duplicates: _containers.RepeatedCompositeFieldContainer[DuplicateSet]
    def __init__(self, bundle_id: _Optional[str] = ..., model: _Optional[str] = ..., context: _Optional[_Union[ScoredContext, _Mapping]] = ..., items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[ImageGroup, _Mapping]]] = ..., duplicates: _Optional[_Iterable[_Union[DuplicateSet, _Mapping]]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("bundle_id", "model", "context", "items", "groups", "duplicates")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    model: str
    context: ScoredContext
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    groups: _containers.RepeatedCompositeFieldContainer[ImageGroup]
    duplicates: _containers.RepeatedCompositeFieldContainer[DuplicateSet]
    def __init__(self, bundle_id: _Optional[str] = ..., model: _Optional[str] = ..., context: _Optional[_Union[ScoredContext, _Mapping]] = ..., items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[ImageGroup, _Mapping]]] = ..., duplicates: _Optional[_Iterable[_Union[DuplicateSet, _Mapping]]] = ...) -> None: ...

class ScoredContext(_message.Message):
    __slots__ = ("source", "size", "estimator", "contamination", "reliability", "warnings")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    CONTAMINATION_FIELD_NUMBER: _ClassVar[int]
    RELIABILITY_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    source: str
    size: int
    estimator: str
    contamination: float
    reliability: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, source: _Optional[str] = ..., size: _Optional[int] = ..., estimator: _Optional[str] = ..., contamination: _Optional[float] = ..., reliability: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ImageGroup(_message.Message):
    __slots__ = ("members", "share", "latents", "misfit_probability")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    MISFIT_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedScalarFieldContainer[int]
    share: float
    latents: _containers.RepeatedScalarFieldContainer[str]
    misfit_probability: float
    def __init__(self, members: _Optional[_Iterable[int]] = ..., share: _Optional[float] = ..., latents: _Optional[_Iterable[str]] = ..., misfit_probability: _Optional[float] = ...) -> None: ...

class DuplicateSet(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, members: _Optional[_Iterable[int]] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("id", "index", "distance")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    index: int
    distance: float
    def __init__(self, id: _Optional[str] = ..., index: _Optional[int] = ..., distance: _Optional[float] = ...) -> None: ...

class ScoredItem(_message.Message):
    __slots__ = ("index", "id", "status", "outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank", "is_foreign", "reason", "attributions", "minimal_set", "factors", "interactions", "heat_maps", "error", "nearest")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_SCORE_FIELD_NUMBER: _ClassVar[int]
    MAHALANOBIS_SQUARED_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    IS_OUTLIER_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    IS_FOREIGN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    MINIMAL_SET_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAPS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    status: str
    outlier_score: float
    mahalanobis_squared: float
    outlier_probability: float
    is_outlier: bool
    rank: int
    is_foreign: bool
    reason: str
    attributions: _containers.RepeatedCompositeFieldContainer[LatentAttribution]
    minimal_set: _containers.RepeatedScalarFieldContainer[str]
    factors: _containers.RepeatedCompositeFieldContainer[FactorAttribution]
    interactions: _containers.RepeatedCompositeFieldContainer[Interaction]
    heat_maps: _containers.RepeatedCompositeFieldContainer[HeatMap]
    error: ErrorDetail
    nearest: _containers.RepeatedCompositeFieldContainer[Neighbour]
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., status: _Optional[str] = ..., outlier_score: _Optional[float] = ..., mahalanobis_squared: _Optional[float] = ..., outlier_probability: _Optional[float] = ..., is_outlier: _Optional[bool] = ..., rank: _Optional[int] = ..., is_foreign: _Optional[bool] = ..., reason: _Optional[str] = ..., attributions: _Optional[_Iterable[_Union[LatentAttribution, _Mapping]]] = ..., minimal_set: _Optional[_Iterable[str]] = ..., factors: _Optional[_Iterable[_Union[FactorAttribution, _Mapping]]] = ..., interactions: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ..., heat_maps: _Optional[_Iterable[_Union[HeatMap, _Mapping]]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ..., nearest: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ...) -> None: ...

class LatentAttribution(_message.Message):
    __slots__ = ("latent", "index", "value", "shapley", "shapley_odds", "conditional_z", "marginal_z", "dead")
    LATENT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SHAPLEY_FIELD_NUMBER: _ClassVar[int]
    SHAPLEY_ODDS_FIELD_NUMBER: _ClassVar[int]
    CONDITIONAL_Z_FIELD_NUMBER: _ClassVar[int]
    MARGINAL_Z_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    latent: str
    index: int
    value: float
    shapley: float
    shapley_odds: float
    conditional_z: float
    marginal_z: float
    dead: bool
    def __init__(self, latent: _Optional[str] = ..., index: _Optional[int] = ..., value: _Optional[float] = ..., shapley: _Optional[float] = ..., shapley_odds: _Optional[float] = ..., conditional_z: _Optional[float] = ..., marginal_z: _Optional[float] = ..., dead: _Optional[bool] = ...) -> None: ...

class FactorAttribution(_message.Message):
    __slots__ = ("factor", "shapley", "shapley_odds")
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    SHAPLEY_FIELD_NUMBER: _ClassVar[int]
    SHAPLEY_ODDS_FIELD_NUMBER: _ClassVar[int]
    factor: str
    shapley: float
    shapley_odds: float
    def __init__(self, factor: _Optional[str] = ..., shapley: _Optional[float] = ..., shapley_odds: _Optional[float] = ...) -> None: ...

class Interaction(_message.Message):
    __slots__ = ("latents", "value")
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    latents: _containers.RepeatedScalarFieldContainer[str]
    value: float
    def __init__(self, latents: _Optional[_Iterable[str]] = ..., value: _Optional[float] = ...) -> None: ...

class HeatMap(_message.Message):
    __slots__ = ("latent", "image")
    LATENT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    latent: str
    image: bytes
    def __init__(self, latent: _Optional[str] = ..., image: _Optional[bytes] = ...) -> None: ...

class FitResponse(_message.Message):
    __slots__ = ("model", "context", "errors")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ErrorDetail
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    context: _struct_pb2.Struct
    errors: _containers.MessageMap[str, ErrorDetail]
    def __init__(self, model: _Optional[str] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., errors: _Optional[_Mapping[str, ErrorDetail]] = ...) -> None: ...

class PicturesResponse(_message.Message):
    __slots__ = ("bundle_id", "model", "context", "latents", "pictures", "errors")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ErrorDetail
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    model: str
    context: ScoredContext
    latents: _containers.RepeatedScalarFieldContainer[str]
    pictures: _containers.RepeatedCompositeFieldContainer[Picture]
    errors: _containers.MessageMap[str, ErrorDetail]
    def __init__(self, bundle_id: _Optional[str] = ..., model: _Optional[str] = ..., context: _Optional[_Union[ScoredContext, _Mapping]] = ..., latents: _Optional[_Iterable[str]] = ..., pictures: _Optional[_Iterable[_Union[Picture, _Mapping]]] = ..., errors: _Optional[_Mapping[str, ErrorDetail]] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("id", "index", "changed", "latents", "mahalanobis_squared", "inside", "image", "exemplar")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    MAHALANOBIS_SQUARED_FIELD_NUMBER: _ClassVar[int]
    INSIDE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    EXEMPLAR_FIELD_NUMBER: _ClassVar[int]
    id: str
    index: int
    changed: _containers.RepeatedScalarFieldContainer[str]
    latents: _containers.RepeatedScalarFieldContainer[float]
    mahalanobis_squared: Distances
    inside: bool
    image: bytes
    exemplar: str
    def __init__(self, id: _Optional[str] = ..., index: _Optional[int] = ..., changed: _Optional[_Iterable[str]] = ..., latents: _Optional[_Iterable[float]] = ..., mahalanobis_squared: _Optional[_Union[Distances, _Mapping]] = ..., inside: _Optional[bool] = ..., image: _Optional[bytes] = ..., exemplar: _Optional[str] = ...) -> None: ...

class Distances(_message.Message):
    __slots__ = ("before", "after", "reencoded")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REENCODED_FIELD_NUMBER: _ClassVar[int]
    before: float
    after: float
    reencoded: float
    def __init__(self, before: _Optional[float] = ..., after: _Optional[float] = ..., reencoded: _Optional[float] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("bundle_id", "model", "latents", "items", "warnings")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    model: str
    latents: _containers.RepeatedScalarFieldContainer[str]
    items: _containers.RepeatedCompositeFieldContainer[EncodedItem]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bundle_id: _Optional[str] = ..., model: _Optional[str] = ..., latents: _Optional[_Iterable[str]] = ..., items: _Optional[_Iterable[_Union[EncodedItem, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class EncodedItem(_message.Message):
    __slots__ = ("index", "id", "status", "mean", "logvar", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LOGVAR_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    status: str
    mean: _containers.RepeatedScalarFieldContainer[float]
    logvar: _containers.RepeatedScalarFieldContainer[float]
    error: ErrorDetail
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., status: _Optional[str] = ..., mean: _Optional[_Iterable[float]] = ..., logvar: _Optional[_Iterable[float]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("bundle_id", "model", "image", "latent_dim", "latents", "metrics", "estimators", "default_estimator", "provider", "limits", "capabilities", "trained_on", "drawing", "remarks")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_DIM_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATORS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TRAINED_ON_FIELD_NUMBER: _ClassVar[int]
    DRAWING_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    model: str
    image: ImageSpec
    latent_dim: int
    latents: _containers.RepeatedCompositeFieldContainer[Latent]
    metrics: _struct_pb2.Struct
    estimators: _containers.RepeatedScalarFieldContainer[str]
    default_estimator: str
    provider: str
    limits: Limits
    capabilities: Capabilities
    trained_on: str
    drawing: str
    remarks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bundle_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[ImageSpec, _Mapping]] = ..., latent_dim: _Optional[int] = ..., latents: _Optional[_Iterable[_Union[Latent, _Mapping]]] = ..., metrics: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., estimators: _Optional[_Iterable[str]] = ..., default_estimator: _Optional[str] = ..., provider: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., capabilities: _Optional[_Union[Capabilities, _Mapping]] = ..., trained_on: _Optional[str] = ..., drawing: _Optional[str] = ..., remarks: _Optional[_Iterable[str]] = ...) -> None: ...

class Capabilities(_message.Message):
    __slots__ = ("can_decode", "has_saliency", "has_uncertainty")
    CAN_DECODE_FIELD_NUMBER: _ClassVar[int]
    HAS_SALIENCY_FIELD_NUMBER: _ClassVar[int]
    HAS_UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    can_decode: bool
    has_saliency: bool
    has_uncertainty: bool
    def __init__(self, can_decode: _Optional[bool] = ..., has_saliency: _Optional[bool] = ..., has_uncertainty: _Optional[bool] = ...) -> None: ...

class ImageSpec(_message.Message):
    __slots__ = ("height", "width", "channels")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    channels: int
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ...) -> None: ...

class Latent(_message.Message):
    __slots__ = ("index", "name", "factor", "mutual_information", "dead", "unit")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MUTUAL_INFORMATION_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    factor: str
    mutual_information: float
    dead: bool
    unit: str
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., factor: _Optional[str] = ..., mutual_information: _Optional[float] = ..., dead: _Optional[bool] = ..., unit: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_images", "max_body_bytes", "max_image_pixels", "max_rows_in_flight", "max_bytes_in_flight", "timeout_seconds", "max_stream_images")
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    max_images: int
    max_body_bytes: int
    max_image_pixels: int
    max_rows_in_flight: int
    max_bytes_in_flight: int
    timeout_seconds: float
    max_stream_images: int
    def __init__(self, max_images: _Optional[int] = ..., max_body_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_rows_in_flight: _Optional[int] = ..., max_bytes_in_flight: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., max_stream_images: _Optional[int] = ...) -> None: ...
