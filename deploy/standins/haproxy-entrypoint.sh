#!/bin/sh
# As the official image has it: arguments alone go to the server, which runs as master and worker.
set -e
case "$1" in -*) set -- haproxy "$@" ;; esac
if [ "$1" = haproxy ]; then
  shift
  set -- haproxy -W -db "$@"
fi
exec "$@"
