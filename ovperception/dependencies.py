"""Which extra brings which library: what to say when one is not installed."""

from __future__ import annotations

from ovperception.errors import MissingDependency

__all__ = ["OURS", "missing"]

OURS = frozenset({"ovperception", "heads", "serving", "eval"})

_EXTRAS = {
    "PIL": "server",
    "detectron2": "detectron2",
    "grpc_health": "server",
    "grpc_reflection": "server",
    "hotcoco": "eval",
    "huggingface_hub": "server",
    "jinja2": "eval",
    "mmengine": "mmseg",
    "mmseg": "mmseg",
    "open_clip": "server",
    "pycocotools": "server",
    "safetensors": "server",
    "scipy": "server",
    "supervision": "interop",
    "timm": "server",
    "torch": "server",
    "torchvision": "server",
}


def missing(error: ModuleNotFoundError, needed_by: str) -> Exception:
    """The error to raise for a module that could not be found.

    Args:
        error: What the import raised.
        needed_by: What the user asked for, such as ``ovp serve``.

    Returns:
        A `MissingDependency` that names the extra to install; or `error` itself if one of our own modules is
        missing, because then the installation is broken and no extra mends it.
    """
    library = (error.name or "").partition(".")[0]
    if not library or library in OURS:
        return error
    extra = _EXTRAS.get(library)
    mend = f"Install it with: pip install 'ovperception[{extra}]'" if extra else f"Install {library}"
    return MissingDependency(f"{needed_by} needs {library}, which is not installed", mend=mend)
