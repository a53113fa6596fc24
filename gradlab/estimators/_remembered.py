"""Values that are remembered by what they were made from, the latest ones within a budget of bytes.

A count of values does not bound memory where one of them may be a thousand times another.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["Remembered"]

_Value = TypeVar("_Value")


class Remembered(Generic[_Value]):
    """The values that were used last, as many as fit `budget` bytes; a larger one is not kept.

    `size` returns the bytes of a value. Threads may share it.
    """

    def __init__(self, budget: int, size: Callable[[_Value], int]) -> None:
        self.budget, self.bytes = budget, 0
        self._size, self._lock = size, Lock()
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> _Value | None:
        """Return the value of this key, or None if it is not remembered."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: _Value) -> None:
        """Remember a value, and forget those that were not used for the longest time."""
        with self._lock:
            if key in self._values or self._size(value) > self.budget:
                return
            self._values[key] = value
            self.bytes += self._size(value)
            while self.bytes > self.budget:
                self.bytes -= self._size(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self.bytes = 0
