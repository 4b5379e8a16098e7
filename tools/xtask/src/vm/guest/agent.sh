#!/bin/bash
# The guest's end of the control channel: for each line NAME that arrives, runs /host/calls/NAME.sh and answers
# "NAME STATUS". Calls run side by side, so that one that hangs does not keep the others from being asked why.
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = lab ] && device=/dev/${port##*/}
done
exec 3<>"$device"
echo ready >&3
while read -r call <&3; do
    (
        bash -e "/host/calls/$call.sh" >"/host/calls/$call.out" 2>&1 </dev/null 3>&-
        echo "$call $?" >&3
    ) &
done
