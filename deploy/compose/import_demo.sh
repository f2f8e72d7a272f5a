#!/bin/sh
# import_demo.sh: imports the demo catalogue into the server of FORAGE_ADDRESS, unless FORAGE_DEMO is
# not "yes" or the server has a catalogue already. An import that was interrupted has left its
# progress in data/imports, and goes on.
set -eu

if [ "${FORAGE_DEMO:-yes}" != yes ]; then
  echo "FORAGE_DEMO=$FORAGE_DEMO: nothing imported"
  exit 0
fi
# 1: some service does not serve, which an import does not need.
status=$(forage status --json || [ $? -eq 1 ])
interrupted=$(find data/imports -name '*.json' 2> /dev/null || true)
if [ -z "$interrupted" ] && echo "$status" | grep -q '"catalog_head"'; then
  echo "there is a catalogue already: nothing imported"
  exit 0
fi
exec forage import --demo
