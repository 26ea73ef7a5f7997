"""A profiler trace of a few seconds of training, for TensorBoard or Perfetto."""

import time

import jax
from etils import epath

# Long enough to hold several steps, short enough to open.
SECONDS = 5.0


class Profile:
    """Traces from the first report of progress, when the step is compiled, for a few seconds.

    Args:
      workdir: the trace goes to its folder profile; None: nothing is traced.
    """

    def __init__(self, workdir: epath.PathLike | None) -> None:
        self._folder = None if workdir is None else epath.Path(workdir) / "profile"
        self._began: float | None = None

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def update(self) -> None:
        """Takes one report of the training loop."""
        if self._folder is None:
            return
        if self._began is None:
            jax.profiler.start_trace(str(self._folder))
            self._began = time.monotonic()
        elif time.monotonic() - self._began > SECONDS:
            self._end()

    def _end(self) -> None:
        """Writes the trace, once."""
        if self._folder is not None and self._began is not None:
            jax.profiler.stop_trace()
            self._folder = None
