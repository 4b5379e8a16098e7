#!/bin/bash
# What one writes for UCARP and DRBD by hand: UCARP calls it with the interface and the address that are to be taken over.
exec >>/run/failover.log 2>&1
note() { echo "$(date +%s.%N) $*"; }
note "vip-up is called"
until drbdadm primary r0 2>/run/primary.log; do sleep 0.2; done
note "primary"
mount /dev/drbd0 /srv/nfs || exit 1
note "mounted"
mountpoint -q /proc/fs/nfsd || { modprobe nfsd; mount -t nfsd nfsd /proc/fs/nfsd; }
mountpoint -q /var/lib/nfs/rpc_pipefs || mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
mkdir -p /var/lib/nfs/nfsdcld
pidof nfsdcld >/dev/null || nfsdcld
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
exportfs -o rw,sync,no_root_squash,no_subtree_check,fsid=7 '*:/srv/nfs' || exit 1
pidof rpc.mountd >/dev/null || rpc.mountd -N 3
rpc.nfsd -N 3 -V 4.2 8 || exit 1
note "the NFS server runs"
ip address add "$2/24" dev "$1"
note "the address is there"
arping -q -U -c 1 -I "$1" "$2"
note "done"
