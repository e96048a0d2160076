#!/bin/sh
# A service as its commands see it: service_control.sh FOLDER start|stop|status|reload [SCRIPT]
#
# Files in FOLDER make it misbehave: 'no-status' (the status command fails), 'no-stop' (the stop command does), 'hang'
# (the stop command never ends), 'slow' (the start command waits until the file is gone).
folder=$1
pid=$(cat "$folder/pid" 2>/dev/null)

runs() {
    [ -n "$pid" ] && read -r _ _ state _ 2>/dev/null <"/proc/$pid/stat" && [ "$state" != Z ]
}

echo "$2" >>"$folder/calls"
case $2 in
start)
    while [ -e "$folder/slow" ]; do sleep 0.02; done
    setsid sh -c "$3" >>"$folder/output" 2>&1 </dev/null &
    echo $! >"$folder/pid"
    ;;
stop)
    if [ -e "$folder/no-stop" ]; then echo "no way" >&2; exit 1; fi
    if [ -e "$folder/hang" ]; then sleep 1000 & wait; fi
    runs && kill -TERM "$pid"
    exit 0
    ;;
status)
    if [ -e "$folder/no-status" ] || [ -e "$folder/../no-status" ]; then echo "cannot ask" >&2; exit 1; fi
    if runs; then exit 0; else exit 3; fi
    ;;
reload)
    kill -HUP "$pid"
    ;;
esac
