"""Reads a line for each command, or for each run that is to be disturbed, and answers with a line.

{"folder", "overrides", "fault"}: the exit status; {"folder", "door", "words", "said"}: the process id, to be asked for
by {"process", "wait"}; {"job", "faults"}: how the run got to its end, and what is not equal.
"store": whether the folder gets an empty one where it has none.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from experiments.cli.startup import without_gc

with without_gc():
    from tests.killing.evidence import STORE
    from tests.killing.processes import ended, start, train
    from tests.killing.schedule import Schedule

jobs = Path(sys.argv[1])
schedule = Schedule(jobs)


def answer(wanted: dict[str, Any]) -> Any:
    if "job" in wanted:
        outcome = schedule.run(**wanted)
        return {"starts": outcome.starts, "differences": outcome.differences}
    if "process" in wanted:
        return ended(**wanted)
    folder = Path(wanted["folder"])
    if wanted["store"] and not (folder / STORE).exists():
        shutil.copy(jobs / STORE, folder)
    if "door" in wanted:
        return start(folder, wanted["door"], wanted["words"], Path(wanted["said"]), group=wanted["group"])
    return train(folder, wanted["overrides"], wanted["fault"])


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
