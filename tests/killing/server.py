"""Reads {"job", "faults"} a line, and answers each with how the run got to its end, and what is not equal."""

import json
import sys
from pathlib import Path

from schedule import Schedule

schedule = Schedule(Path(sys.argv[1]))
for line in sys.stdin:
    outcome = schedule.run(**json.loads(line))
    print(json.dumps({"starts": outcome.starts, "differences": outcome.differences}), flush=True)
