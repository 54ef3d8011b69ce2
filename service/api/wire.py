"""Names of headers and metadata that server and client share."""

from __future__ import annotations

REQUEST_ID = "x-request-id"

RETRY_AFTER = "retry-after"

ERROR_DETAIL = "misfit-error-bin"  # gRPC's trailing metadata

INFERENCE_HEADER_LENGTH = "inference-header-content-length"

BUNDLE = "misfit-bundle"  # gRPC's metadata: which of several bundles a call is for
