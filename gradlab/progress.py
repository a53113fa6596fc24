"""Progress of long work on stderr: a bar on a terminal, a plain line every ten seconds elsewhere.

Work of less than two seconds shows nothing. Bars may be nested: the plain line is that of the
outermost one, with the time that is left.
"""

import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from tqdm import tqdm

__all__ = ["Progress", "duration", "say", "tracked"]

T = TypeVar("T")

# Seconds until a bar appears on a terminal, and between two plain lines elsewhere.
_SILENT, _BETWEEN = 2.0, 10.0
# Seconds between two looks at work that does not report a step.
_LOOK = 0.5

_clock = time.monotonic
_lock = threading.RLock()
_open: list["Progress"] = []  # the outermost first
_said = -_BETWEEN  # when the last plain line was printed


class Progress:
    """Progress of one piece of work, shown inside a with block; call `add` after each step.

    `what` names the work and `unit` its steps, of which `done` of `total` are behind it. `what`,
    `total` (0: not known) and `note` may change while it runs. With `shown` False nothing is
    printed.
    """

    def __init__(
        self, what: str, total: int, unit: str, *, shown: bool = True, done: int = 0
    ) -> None:
        self.what, self.total, self.unit, self.shown = what, total, unit, shown
        self.before = self.done = done
        self.note = ""
        self._bar: Any = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._started = _clock()
        if self.shown:
            with _lock:
                _open.append(self)
            if _open[0] is self:
                threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with _lock:
            if self in _open:
                _open.remove(self)
            if self._bar is not None:
                self._bar.close()

    def add(self, steps: int = 1) -> None:
        """Count steps as done."""
        self.done += steps
        if self.shown:
            _show()

    def _watch(self) -> None:
        """Show the progress also while a single step takes long."""
        while not self._ended.wait(_LOOK):
            try:
                _show()
            except (OSError, ValueError):  # stderr is closed
                return

    def _draw(self, now: float) -> None:
        """Draw the bar on a terminal, once the work has taken long enough."""
        elapsed = now - self._started
        if self._bar is None:
            if elapsed < _SILENT:
                return
            total, unit = self.total or None, f" {self.unit}"
            self._bar = tqdm(
                desc=self.what, total=total, initial=self.before, unit=unit, leave=False
            )
            # The rate is that since the work began, not since the bar is there.
            self._bar.start_t -= elapsed
            self._bar.last_print_t = self._bar.start_t
        self._bar.total = self.total or None
        self._bar.set_description(self.what, refresh=False)
        self._bar.set_postfix_str(self.note, refresh=False)
        self._bar.update(self.done - self._bar.n)

    def _line(self, now: float, share: float) -> str:
        """Return the progress in words, with the time left where `share` of the work is done."""
        of = f"/{self.total:,}" if self.total else ""
        text = f"{self.what}: {self.done:,}{of} {self.unit}"
        if self.note:
            text += f" ({self.note})"
        if 0 < share < 1:
            text += f", about {duration((now - self._started) * (1 - share) / share)} left"
        return text


def tracked(items: Collection[T], what: str, unit: str, *, shown: bool = True) -> Iterator[T]:
    """Yield the items, showing how many of them are done."""
    with Progress(what, len(items), unit, shown=shown) as progress:
        for item in items:
            yield item
            progress.add()


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line, by default to stderr, without breaking the bars that are shown."""
    with _lock:
        tqdm.write(text, file=file or sys.stderr)


def _show() -> None:
    """Draw the bars, or print a plain line if it is time for one."""
    global _said
    with _lock:
        if not _open:
            return
        now = _clock()
        if sys.stderr.isatty():
            for progress in _open:
                progress._draw(now)
        elif now - max(_said, _open[0]._started) >= _BETWEEN:
            _said = now
            print(_open[0]._line(now, _share(_open)), file=sys.stderr, flush=True)


def _share(nested: list[Progress]) -> float:
    """Return the share of the outermost work that was done since it began.

    The work inside it counts as a part of its next step.
    """
    outer, *inner = nested
    if outer.total <= outer.before:
        return 0.0
    part = _share(inner) if inner else 0.0
    return (outer.done - outer.before + part) / (outer.total - outer.before)


def duration(seconds: float) -> str:
    """Return seconds in a unit that leaves a short number."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
