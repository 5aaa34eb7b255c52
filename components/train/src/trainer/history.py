"""What a training reports: `history.jsonl`, TensorBoard, Weights & Biases, a plot of its curves.

`history.jsonl` holds nothing but what is decided by recipe and data, so that it comes out the same, byte for
byte, however often the training was interrupted. Times and rates go to TensorBoard and the progress bar.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxsrc import storage
from voxsrc.errors import ConfigError, StorageError

HISTORY_NAME = "history.jsonl"
CURVES_NAME = "training.png"
_TENSORBOARD = "tensorboard"
# A machine that is taken away loses no more of its curves than this.
UPLOAD_INTERVAL_S = 300.0

_log = logging.getLogger("trainer")


class History:
    """The rows of `history.jsonl`, each a step's figures; held in memory, written whole.

    Checkpoints hold them too, and a restart takes them from there: the file may be lost, behind, or of an
    earlier writer that came back.

    Args:
        output_uri: Folder of the run.
    """

    def __init__(self, output_uri: str) -> None:
        self._uri = storage.join(output_uri, HISTORY_NAME)
        self.rows: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """The file's content."""
        return "".join(json.dumps(row) + "\n" for row in self.rows)

    def resume(self, text: str) -> None:
        """Takes over the rows that a checkpoint holds."""
        self.rows = [json.loads(line) for line in text.splitlines()]

    def write(self) -> None:
        """Writes all rows."""
        storage.write_bytes(self._uri, self.text.encode())


class Boards:
    """TensorBoard's event files and, if asked for, Weights & Biases.

    An event file that cannot be written (disk full) is warned of and given up: no training ends for it.

    Args:
        output_uri: Folder of the run; to a bucket `upload_when_due` copies the event files.
        first_step: Events at or after it, of an interrupted run, are marked as void.
        wandb_project: Weights & Biases project; None is without.
        recipe: The resolved recipe, for Weights & Biases.

    Raises:
        ConfigError: If Weights & Biases is asked for and not installed.
    """

    def __init__(
        self, output_uri: str, *, first_step: int, wandb_project: str | None, recipe: Mapping[str, Any]
    ) -> None:
        # TensorBoard takes seconds to import, and only the first process needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._output_uri = output_uri
        self._local = Path(storage.join(output_uri, _TENSORBOARD))
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if storage.is_remote(output_uri):
            self._temporary = tempfile.TemporaryDirectory(prefix="voxsrc-tensorboard-")
            self._local = Path(self._temporary.name)
        self._uploaded_s: float | None = None
        self._writer = SummaryWriter(str(self._local), purge_step=first_step or None)
        self._writes = True
        self._wandb = _wandb_run(wandb_project, output_uri, recipe) if wandb_project else None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values at a step; the part of a name before `/` groups the plots."""
        try:
            for name, value in values.items() if self._writes else ():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._give_up(error)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def upload_when_due(self) -> None:
        """Copies the event files to a bucket, if the run is in one and the last copy is five minutes old.

        Raises:
            StorageError: They cannot be copied.
        """
        now_s = time.monotonic()
        if self._uploaded_s is not None and now_s - self._uploaded_s < UPLOAD_INTERVAL_S:
            return
        self._uploaded_s = now_s
        self._upload()

    def _upload(self) -> None:
        """Copies the event files to a bucket, if the run's folder is in one."""
        if not self._writes or self._temporary is None:
            return
        self._writer.flush()
        for path in self._local.iterdir():
            storage.upload(str(path), storage.join(self._output_uri, _TENSORBOARD, path.name))

    def close(self) -> None:
        """Writes what is pending."""
        try:
            if self._writes:
                self._upload()
                self._writer.close()
        except (OSError, StorageError) as error:
            self._give_up(error)
        if self._temporary is not None:
            self._temporary.cleanup()
        if self._wandb is not None:
            self._wandb.finish()

    def _give_up(self, error: Exception) -> None:
        self._writes = False
        _log.warning("%s: TensorBoard's events are not written any more: %s", self._local, error)


def _wandb_run(project: str, output_uri: str, recipe: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"wandb_project is {project!r}, but wandb is not installed, nor is it in the train image: "
            f"`{sys.executable} -m pip install wandb`, or --set wandb_project=null"
        ) from error
    # The same id after a restart: the run goes on instead of beginning another one.
    place = hashlib.sha256(output_uri.encode()).hexdigest()[:8]
    run_id = os.environ.get("WANDB_RUN_ID") or f"{storage.name(output_uri)}-{place}"
    return wandb.init(project=project, id=run_id, resume="allow", config=dict(recipe))


def draw_curves(output_uri: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Plots loss, accuracy, learning rate and validation EER over the steps into `training.png`."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("loss", "training loss", 1.0),
        ("accuracy", "training accuracy, %", 100.0),
        ("validation_eer", "validation EER, %", 100.0),
        ("learning_rate", "learning rate", 1.0),
    )
    for axes, (name, title, scale) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        points = [(row["step"], scale * row[name]) for row in rows if name in row]
        axes.plot(
            [step for step, _ in points],
            [value for _, value in points],
            marker="o" if len(points) < 30 else "",
            markersize=3,
        )
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if name == "validation_eer":
            axes.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    storage.write_bytes(storage.join(output_uri, CURVES_NAME), buffer.getvalue())
