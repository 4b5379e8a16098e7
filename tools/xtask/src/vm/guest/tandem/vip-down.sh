#!/bin/bash
# The way back; UCARP calls it when it starts, too.
exec >>/run/failover.log 2>&1
echo "$(date +%s.%N) vip-down is called"
exec nfs-failover demote nfs
