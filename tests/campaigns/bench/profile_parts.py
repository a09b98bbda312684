"""Where the service's time goes: py-spy's stacks (`streams_bench --profile FILE`) by part, in percent.

python -m tests.campaigns.bench.profile_parts FILE
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

PARTS = (  # the first of which a word stands in the stack
    ("waiting for the disk: the log's commit (no CPU)", ("transaction (",)),
    ("the log: ids, rows, handing on", ("EventLog.", "Writer.", "Numbering.", "Delivery.")),
    ("model: ONNX Runtime", ("InferenceSession", "Session.run")),
    ("model: states in and out of batches", ("OnnxStep.step",)),
    ("model: patches kept, scores sorted", ("Incremental.",)),
    ("model: whole patches", ("WholePatch.",)),
    ("front end", ("FrontEnd.",)),
    ("rings: windows out", ("SampleRing.windows",)),
    ("detector", ("Detector.",)),
    ("detections: dressed, evidence", ("Dressing.",)),
    ("taking what has arrived into the rings", ("Tick._take",)),
    ("engine: rest of the tick", ("Engine.tick",)),
    ("sockets: audio in", ("data_received",)),
    ("sockets: messages out", ("AudioSocket.", "Outbox.")),
    ("sockets: the loop", ("run_forever",)),
)
_IDLE = ("select (selectors", "BatchingSelector.select", "wait (threading", "_wait", "poll")


def main() -> None:
    """See the module."""
    counts: Counter[str] = Counter()
    for line in Path(sys.argv[1]).read_text().splitlines():
        stack, _, n = line.rpartition(" ")
        if any(word in stack.split(";")[-1] for word in _IDLE):
            continue
        part = next((name for name, words in PARTS if any(word in stack for word in words)), "the rest")
        counts[part] += int(n)
    total = sum(counts.values())
    for part, n in counts.most_common():
        print(f"{100 * n / total:5.1f} %  {part}")


if __name__ == "__main__":
    main()
