"""The process that computes cells: it reads tasks from stdin and writes rows to stdout, as JSON.

It ends when its parent does, and may be ended at any moment.
"""

import json
import math
import os
import queue
import sys
import threading
import time
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Compute tasks until stdin ends; a task is left `spell` seconds after its first row.

    The argument of the process is the number of bytes that it may allocate; 0 means no limit.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what user code prints is not an answer
    _limit_memory(int(sys.argv[1]))

    import torch

    from gradlab.sweep.cells import Task, computed
    from gradlab.sweep.store import versions

    torch.set_num_threads(1)

    def answer(message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    answer({"versions": versions()})
    while True:
        message = json.loads(tasks.get())
        begun, spell = time.monotonic(), message.pop("spell")
        ends = math.inf
        for row in computed(Task.from_message(message)):
            now = time.monotonic()
            if row is None:
                answer({"shared": now - begun})
                # What the cells share may take long: it must be a small part of the whole.
                ends = now + max(spell, 5 * (now - begun))
                continue
            answer(row)
            if now > ends:
                break
        answer({"end": True})


def _listen(tasks: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main()
