#!/bin/sh
# A research agent pays a coding agent 5 cents upfront. The coding agent starts with nothing: from what it just earned
# it buys time at a compute service, with a wallet and a limit of its own, and delivers.
#
#   CODER   where the coding agent is        FARTHING_HOME   the research agent's wallet
set -eu

echo "The research agent orders a tested function, for at most 6 cents:"
farthing fetch -X POST "$CODER/jobs" --json '{"task":"count primes","below":200000}' --max 0.06
