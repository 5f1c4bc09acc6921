"""Put the shipped denoiser, and the runtime that runs it in the browser, into the site."""

import gzip
import hashlib
import json
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

WEIGHTS = "vdm_lite/runs/ch12/fashion28.safetensors"
SHAPE = (1, 28, 28)
RUNTIME = "node_modules/onnxruntime-web/dist"
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SOURCES = ("training/onnx.py", "nets/unet.py", "nets/embeddings.py")
EXPORTERS = ("torch", "onnxscript", "onnx", "onnx-ir")


def lacking(root: Path) -> str:
    """What this build lacks, as the end of a sentence; empty if nothing."""
    if not all((root / RUNTIME / name).exists() for name in (SCRIPT, BINARY)):
        return "npm, which brings ONNX Runtime, was not there"
    if find_spec("onnxscript") is None:
        return "onnxscript, which exports the denoiser, was not there"
    return "" if (root / WEIGHTS).exists() else "the trained weights were not there"


def exported(root: Path, cache: Path) -> Path:
    """The denoiser as an ONNX file, made anew when weights, code or what exports have changed."""
    library = [root / "vdm_lite" / name for name in SOURCES]
    content = b"".join(path.read_bytes() for path in [root / WEIGHTS, *library])
    versions = " ".join(map(version, EXPORTERS))
    digest = hashlib.sha256(content + versions.encode()).hexdigest()[:16]
    path = cache / f"{digest}.onnx"
    if not path.exists():
        from vdm_lite.training import onnx
        from vdm_lite.training.config import load_model

        logger.info("Exporting the denoiser for the browser")
        shutil.rmtree(cache, ignore_errors=True)
        onnx.export(load_model(root / WEIGHTS), path, SHAPE)
    return path


def assemble(root: Path, cache: Path, target: Path) -> None:
    """Fill ``target`` with the denoiser, the runtime and the list that the page reads first."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    missing = lacking(root)
    if missing:
        logger.info("Pictures cannot be sampled in the pages of this build: %s.", missing)
        listing = {"missing": f"when this book was built, {missing}"}
    else:
        shutil.copy(exported(root, cache), target / "denoiser.onnx")
        shutil.copy(root / RUNTIME / SCRIPT, target)
        # Not every server compresses; the page undoes it.
        packed = gzip.compress((root / RUNTIME / BINARY).read_bytes(), mtime=0)
        (target / f"{BINARY}.gz").write_bytes(packed)
        size = len(packed) + (target / "denoiser.onnx").stat().st_size
        listing = {"script": SCRIPT, "runtime": f"{BINARY}.gz", "weights": "denoiser.onnx"}
        listing["bytes"] = size
    (target / "denoiser.json").write_text(json.dumps(listing), encoding="utf-8")


def fill_site(app: Sphinx) -> None:
    """Run ``assemble`` for an HTML build."""
    if app.builder.format == "html":
        root, out = Path(app.srcdir), Path(app.outdir)
        assemble(root, out.parent / "onnx", out / "_static" / "denoiser")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("builder-inited", fill_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
