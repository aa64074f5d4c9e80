#!/bin/sh
# Trains with train.py where python3 is there. Elsewhere it fits `y = a x` to two points by gradient descent in the shell's
# whole numbers, thousandths, and leaves the same files in model/ beside itself.
set -eu
cd "$(dirname "$0")"
if command -v python3 >/dev/null; then
    exec python3 train.py
fi
mkdir -p model
a=0
for epoch in 1 2 3 4 5; do
    # The points are (1, 3) and (2, 6); the gradient of the mean squared error is 5 (a - 3), the rate 0.1.
    a=$((a - 5 * (a - 3000) / 10))
    loss=$(((a - 3000) * (a - 3000) * 5 / 2000))
    echo "epoch $epoch of 5, loss $((loss / 1000)).$(printf %03d $((loss % 1000)))"
    sleep 1
done
echo "{\"slope\": $((a / 1000)).$(printf %03d $((a % 1000)))}" >model/model.json
echo "{\"loss\": $((loss / 1000)).$(printf %03d $((loss % 1000)))}" >model/metrics.json
echo "trained by ${TRAINING_JOB_NAME:-no training job}"
