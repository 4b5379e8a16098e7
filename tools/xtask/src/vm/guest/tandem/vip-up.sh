#!/bin/bash
# UCARP calls it with the interface and the address that are to be taken over.
exec >>/run/failover.log 2>&1
echo "$(date +%s.%N) vip-up is called"
exec nfs-failover promote nfs
