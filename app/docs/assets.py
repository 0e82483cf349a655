"""The pages' static files. Their names change with their content, so browsers keep them a year."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flask import Response
from markupsafe import Markup

from app.api.http.cacheable import cacheable_response

_DIRECTORY = Path(__file__).parent / "static"
_FOREVER = "public, max-age=31536000, immutable"
_DIGEST_LENGTH = 12
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file whose name changes with its content."""

    name: str
    content: bytes
    media_type: str


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    digest = sha256(content).hexdigest()[:_DIGEST_LENGTH]
    return Asset(f"{path.stem}.{digest}{path.suffix}", content, _MEDIA_TYPES[path.suffix])


_ASSETS = {path.name: _read(path) for path in sorted(_DIRECTORY.iterdir())}
_BY_NAME = {asset.name: asset for asset in _ASSETS.values()}


def asset_name(file_name: str) -> str:
    """Return the name under which a file of `static/` is served."""
    return _ASSETS[file_name].name


def mark() -> Markup:
    """Return the product's mark, as an element of a page."""
    return Markup(_ASSETS["mark.svg"].content.decode())  # noqa: S704  our own file


def asset_response(name: str) -> Response | None:
    """Return the response with an asset, or None if no asset has that name."""
    asset = _BY_NAME.get(name)
    if asset is None:
        return None
    response = cacheable_response(asset.content, asset.media_type)
    response.headers["Cache-Control"] = _FOREVER
    return response
