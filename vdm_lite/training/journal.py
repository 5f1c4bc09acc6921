"""The log of a run: rows in a CSV file and points in TensorBoard, cut back when a run resumes."""

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from vdm_lite.training.checkpoints import write_bytes

FILE = "log.csv"
LOSSES = ("loss", "weighted_loss")
"""The names that a training loss has: without and with a weighting."""
COSTS = ("bits_per_dim", "error", "prior", "reconstruction", "diffusion")
"""What is measured on held-out images, in bits/dim."""


def columns(loss: str = "loss") -> tuple[str, ...]:
    """The columns of a log whose training loss has this name, one of :data:`LOSSES`.

    ``loss`` is the mean over the steps since the row before (or since the run was last started) of
    what is trained on, in bits/dim: the bound's diffusion term, or all of the bound where its ends
    are learned. With a weighting it is no bound: ``weighted_loss``, in the same units. The costs
    are those of held-out images, in bits/dim.
    """
    return ("step", loss, "grad_norm", "learning_rate", "images_per_s", *COSTS)


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a log; what was not measured at a step is missing in its row.

    Raises ``ValueError`` for a file of anything else.
    """
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]  # a full disk may have cut the last row
    rows = csv.DictReader(io.StringIO(complete))
    try:
        if tuple(rows.fieldnames or ()) not in map(columns, LOSSES):
            raise ValueError(f"columns {rows.fieldnames}")
        return [{key: float(value) for key, value in row.items() if value} for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the log of a run, got {error}") from error


class Journal:
    """Adds rows to the log in a folder, as numbers by step.

    Rows after the step that a run resumes from are dropped: those steps are done again.
    """

    def __init__(self, folder: Path, step: int, loss: str = "loss") -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and an extra

        self.path, self.columns = folder / FILE, columns(loss)
        kept = [r for r in read(self.path) if r["step"] <= step] if self.path.exists() else []
        self.reached = int(kept[-1]["step"]) if kept else 0
        """The step of the last row; 0: there is none."""
        content = io.StringIO(newline="")
        form = csv.DictWriter(content, self.columns, lineterminator="\n")
        form.writeheader()
        form.writerows(_plain(row) for row in kept)
        write_bytes(self.path, content.getvalue().encode())
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Add a row, with the operating system when this returns.

        ``OSError`` names the file, or the folder of TensorBoard, that cannot be written.
        """
        with _naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            form = csv.DictWriter(file, self.columns, lineterminator="\n")
            form.writerow(_plain({"step": step, **numbers}))
        with _naming(self.board.log_dir):
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()

    def show(self, step: int, canvas: Tensor) -> None:
        """Add a picture (H, W, C) of samples to TensorBoard. ``OSError`` as in :meth:`write`."""
        with _naming(self.board.log_dir):
            self.board.add_image("samples", canvas, step, dataformats="HWC")

    def close(self) -> None:
        """Finish the files. ``OSError`` as in :meth:`write`."""
        with _naming(self.board.log_dir):
            self.board.close()


@contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {error}") from error


def _plain(row: dict[str, float]) -> dict[str, str]:
    return {key: f"{value:.6g}" if key != "step" else f"{value:.0f}" for key, value in row.items()}
