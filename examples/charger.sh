#!/bin/sh
# A car charges, and pays by the watt-hour while the current flows: one deposit, a voucher every 20 Wh, one settlement.
# It stops when its battery is full, or when its owner's limit is reached; and goes on when the owner allows more.
#
#   VOLT   where the charger is        FARTHING_HOME   the car's wallet
set -eu

need=800 # watt-hours

# Charges for at most so many dollars. The charger's answer says what came, event by event.
charge() {
  answer=$(farthing fetch --session "$VOLT/charge?wh=$need" --max "$1" --deposit 0.20) || true
  printf '%s\n' "$answer"
  came=$(printf '%s' "$answer" | grep -o given_wh | wc -l)
  need=$((need - 20 * came))
  [ "$came" -gt 0 ] || exit 1
}

echo "The owner allows 10 cents for today:"
charge 0.10
echo "$need Wh are missing. The owner, by telephone, allows 10 more:"
charge 0.10
[ "$need" -eq 0 ] || exit 1

echo "The battery is full. The car closes its channel: the charger is paid, and the rest of the deposit comes back."
farthing channel close "$VOLT" >/dev/null
