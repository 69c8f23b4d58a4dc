"""Reads a line for each training, or for each run that is to be disturbed, and answers with a line.

{"folder", "overrides", "fault"}: the exit status; {"job", "faults"}: how the run got to its end, and what is not equal.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.killing.evidence import STORE
from tests.killing.processes import train
from tests.killing.schedule import Schedule

jobs = Path(sys.argv[1])
schedule = Schedule(jobs)


def answer(wanted: dict[str, Any]) -> Any:
    if "job" not in wanted:
        folder = Path(wanted["folder"])
        if not (folder / STORE).exists():
            shutil.copy(jobs / STORE, folder)
        return train(folder, wanted["overrides"], wanted["fault"])
    outcome = schedule.run(**wanted)
    return {"starts": outcome.starts, "differences": outcome.differences}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
