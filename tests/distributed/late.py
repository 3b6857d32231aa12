"""python late.py COORDINATOR NUM_PROCESSES PROCESS_ID LATE: all meet at a barrier, and one comes late."""

import sys
import time

from sdd import processes

coordinator, *numbers = sys.argv[1:]
num_processes, process_id, late = map(int, numbers)
with processes.joined(processes.Place(coordinator, num_processes, process_id), lost_after=20.0):
    processes.barrier("breakfast", seconds=60.0)
    if process_id == late:
        time.sleep(30.0)  # alive, and beating, but busy with something else
    processes.barrier("lunch", seconds=2.0)
