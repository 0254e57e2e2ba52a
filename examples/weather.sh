#!/bin/sh
# An agent needs tomorrow's weather. Three sellers offer it. It asks each of them, unpaid, and buys the cheapest offer
# that its owner permits: one seller is dearer, and the one with the lowest number wants euros, of which the owner
# allowed none.
#
#   NIMBUS STRATUS CIRRUS   where the sellers are        FARTHING_HOME   the agent's wallet
#
# `farthing demo` runs this; `farthing dev` prints the variables to run it yourself.
set -eu

echo "Ask three sellers, pay the cheapest that the owner permits, at most 1 cent:"
farthing fetch --max 0.01 --cheapest \
  "$NIMBUS/tomorrow?city=Lisbon" "$STRATUS/tomorrow?city=Lisbon" "$CIRRUS/tomorrow?city=Lisbon"
