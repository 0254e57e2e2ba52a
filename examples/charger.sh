#!/bin/sh
# A car charges. Electricity comes in slices of 0.1 kWh, each at the price of the moment: the charger's price hook
# raises it with the load. The car buys slice by slice until its battery is full, or its owner's limit stops it.
#
#   VOLT   where the charger is        FARTHING_HOME   the car's wallet
set -eu

# Buys slices until there is a reason to stop. Each answer says how full the battery is.
charge() {
  code=0
  while [ "$code" -eq 0 ]; do
    answer=$(farthing fetch -X POST "$VOLT/slices" --max 0.03) || code=$?
    echo "$answer"
    case $answer in *'"battery_full":true'*) echo "The battery is full."; return ;; esac
  done
  [ "$code" -eq 3 ] || exit "$code" # 3: the policy denies it
  echo "The car stops: its owner allows no more."
}

echo "The owner allows 10 cents an hour:"
farthing wallet limit --hour 0.10 >/dev/null
charge

echo "The owner, by telephone, allows 25:"
farthing wallet limit --hour 0.25 >/dev/null
charge
