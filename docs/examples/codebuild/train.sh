#!/bin/sh
# Stands for a training: writes for whom it ran.
set -eu
read -r client product version </model.txt
echo "{\"client\": \"$client\", \"product\": \"$product\", \"version\": \"$version\"}" >result.json
cat result.json
