#!/usr/bin/env python3
"""The whole published battery of hostile-facilitator for one command, and what came of it as JSON.

    python3 battery.py COMMAND…

The same as `hostile-facilitator test`, but for the half minute after which that kills a command and leaves running what the
command started: on a busy machine a purchase may take longer.
"""

import json
import sys

from hostile_facilitator.adapter import battery_over_command

LONGEST_S = 180

print(json.dumps(battery_over_command(sys.argv[1:], run_timeout_s=LONGEST_S)))
