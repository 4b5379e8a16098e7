#!/bin/busybox sh
# Finds the root file system: the modules are in the order in which they need each other.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod "$module"; done
until [ -e /dev/vda ]; do $b sleep 0.05; done
$b mount -t ext4 -o noatime /dev/vda /root
$b umount /proc /sys
$b mount --move /dev /root/dev
exec $b switch_root /root /sbin/lab-init
