"""The wheel, in an environment of its own: every module, every file, and nothing of the extras."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import missing

ROOT = Path(__file__).parents[2]
# Run by the new environment's Python, in a folder without the project.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
for name in ("lightning_fabric", "tensorboard", "onnxscript", "onnx_ir", "torchvision"):
    sys.modules[name] = None  # as where the extras are not installed
import vdm_lite
names = [m.name for m in pkgutil.walk_packages(vdm_lite.__path__, "vdm_lite.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps({"at": vdm_lite.__path__[0], "names": names}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end and return what it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept() -> list[str]:
    """Return the files of the package that git keeps."""
    git = shutil.which("git") or missing("git is not installed")
    listed = run(git, "ls-files", "vdm_lite", cwd=ROOT).splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel; what it needs, it borrows from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ["pyproject.toml", "README.md", "LICENSE", *kept()]:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    offline = ("--quiet", "--no-deps", "--no-index")
    run(*pip, "wheel", *offline, "--no-build-isolation", "./source", cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    run(*pip, "--python", python, "install", *offline, wheel, cwd=folder)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", where, cwd=folder).strip())
    borrowed = sysconfig.get_path("purelib") + "\n"
    (packages / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    return folder / "env"


def test_every_module_and_every_file_is_in_the_wheel(environment):
    python = environment / "bin" / "python"
    found = json.loads(run(python, "-I", "-c", IMPORT_ALL, cwd=environment))
    package = Path(found["at"])
    assert environment.resolve() in package.resolve().parents
    assert {"vdm_lite.gaussian", "vdm_lite.training.loop", "vdm_lite.cli"} <= set(found["names"])
    assert "vdm_lite/py.typed" in kept()
    assert [name for name in kept() if not (package.parent / name).is_file()] == []


def test_the_command_starts(environment):
    assert "train" in run(environment / "bin" / "vdm-lite", "--help", cwd=environment)
