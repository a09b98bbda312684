"""The page's files: a browser may keep each, but asks every time whether it is still so."""

from __future__ import annotations

import hashlib
import os
from mimetypes import guess_type
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope


class PageFiles(StaticFiles):
    """Known by their content (ETag), since the files of two versions can have the same times and sizes. The page is
    made of modules: one that was kept from before an upgrade would not fit the others.
    """

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, or 304 where the browser has it."""
        content = Path(full_path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:32]
        # no time of change, which would be believed where no ETag is asked for
        headers = {"cache-control": "no-cache", "etag": f'"{digest}"'}
        kind = guess_type(full_path)[0] or "application/octet-stream"
        response = Response(content, status_code, headers, kind)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response
