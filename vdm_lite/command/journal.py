"""The log of a run: rows in a CSV file and points in TensorBoard, cut back when a run resumes."""

import csv
import io
from pathlib import Path

from vdm_lite.checkpoints import write_bytes

COLUMNS = ("step", "loss", "grad_norm", "learning_rate", "images_per_s")
COLUMNS += ("bits_per_dim", "error", "prior", "reconstruction", "diffusion")


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a log; what was not measured at a step is missing in its row."""
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]  # a full disk may have cut the last row
    rows = csv.DictReader(io.StringIO(complete))
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


class Journal:
    """Rows of numbers by step. ``loss`` is the training loss; the last five are of held-out images.

    All but the rate, the norm and the speed are in bits/dim. Rows after the step that a run
    resumes from are dropped: those steps are done again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and an extra

        self.path = folder / "log.csv"
        kept = read(self.path) if self.path.exists() else []
        content = io.StringIO(newline="")
        form = csv.DictWriter(content, COLUMNS, lineterminator="\n")
        form.writeheader()
        form.writerows(_plain(row) for row in kept if row["step"] <= step)
        write_bytes(self.path, content.getvalue().encode())
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Add a row, on the disk when this returns."""
        with self.path.open("a", newline="") as file:
            form = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            form.writerow(_plain({"step": step, **numbers}))
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)
        self.board.flush()

    def close(self) -> None:
        """Finish the files."""
        self.board.close()


def _plain(row: dict[str, float]) -> dict[str, str]:
    return {key: f"{value:.6g}" for key, value in row.items()}
