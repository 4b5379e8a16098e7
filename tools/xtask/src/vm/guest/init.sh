#!/bin/sh
# The first process of a lab machine. The kernel's command line says who it is: lab.name=NAME lab.address=A.B.C.D/LEN
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for folder in /dev/shm /run /tmp /var/lib/nfs; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/lock /run/drbd /run/sendsigs.omit.d /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/rpc_pipefs /var/lib/nfs/v4recovery
: > /var/lib/nfs/etab
: > /var/lib/nfs/rmtab
echo 0 > /var/lib/nfs/state

said() { sed -n "s|.*lab\.$1=\([^ ]*\).*|\1|p" /proc/cmdline; }
hostname "$(said name)"
modprobe -a virtio_net virtio_console virtio_rng 9pnet_virtio 9p
ip link set lo up
ip address add "$(said address)" dev eth0
ip link set eth0 up
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none host /host
while :; do setsid /sbin/lab-agent; sleep 0.2; done
