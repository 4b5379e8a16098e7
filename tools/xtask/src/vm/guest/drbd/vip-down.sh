#!/bin/bash
# The way back; UCARP calls it when it starts, too.
exec >>/run/failover.log 2>&1
echo "$(date +%s.%N) vip-down is called"
ip address del "$2/24" dev "$1" 2>/dev/null
if mountpoint -q /srv/nfs; then
    rpc.nfsd 0
    exportfs -ua
    umount /srv/nfs
fi
drbdadm secondary r0
echo "$(date +%s.%N) down"
