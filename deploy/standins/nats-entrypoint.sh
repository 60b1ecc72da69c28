#!/bin/sh
# As the official image has it: arguments alone go to the server.
set -e
case "$1" in -*) set -- nats-server "$@" ;; esac
exec "$@"
