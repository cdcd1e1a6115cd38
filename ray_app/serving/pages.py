"""The page at `/`: three files, which ask the API for everything they show."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src https: http: data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
router = APIRouter(include_in_schema=False)


def _file(name: str, media_type: str) -> Response:
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache", "referrer-policy": "no-referrer"}
    return Response(files("ray_app.serving").joinpath("page", name).read_bytes(), 200, headers, media_type)


@router.get("/")
async def index() -> Response:
    """The page."""
    return _file("index.html", "text/html; charset=utf-8")


@router.get("/page/style.css")
async def style() -> Response:
    """How it looks."""
    return _file("style.css", "text/css; charset=utf-8")


@router.get("/page/page.js")
async def script() -> Response:
    """What it does."""
    return _file("page.js", "text/javascript; charset=utf-8")
