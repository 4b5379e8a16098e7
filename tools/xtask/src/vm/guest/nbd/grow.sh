# A keeper whose tandemd is replaced by one with a larger disk and the same data: the mounted device grows when it is told.
for size in 32 64; do
    mkdir /run/$size
    truncate -s ${size}M /root/$size.disk
    cat >/root/$size.conf <<END
global { device-driver none; }
resource g {
  device /dev/drbd1;
  meta-disk internal;
  on n1 { disk /root/$size.disk; address 127.0.0.1:7790; }
  on n2 { disk /root/$size.disk; address 127.0.0.2:7790; }
}
END
done
adm() { run=$1; shift; TANDEM_RUN_DIR=/run/$run tandemadm -c /root/$run.conf "$@"; }
serve() { adm $1 create-md --force g; adm $1 up g; adm $1 primary --force g; ln -sfn /run/$1/nbd.sock /run/keeper/nbd.sock; }
resize() {
    perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die;
        syswrite(S, "{\"request\":\"resize\"}\n"); print scalar <S>' /run/keeper/device/g-0.sock
}
mkdir /run/keeper
serve 32
tandem-device serve --resource g --device /dev/drbd1 --run-dir /run/keeper --driver nbd >/run/keeper/said 2>/run/keeper/log &
until [ -s /run/keeper/said ]; do sleep 0.1; done
before=$(blockdev --getsize64 /dev/drbd1)
# With the smallest journal it could not grow.
mkfs.ext4 -q -J size=4 /dev/drbd1
mount /dev/drbd1 /mnt
head -c 5000000 /dev/urandom >/mnt/file
sum=$(sha256sum </mnt/file)
sync
kill -KILL $(cat /run/32/tandemd.pid)
while [ -e /proc/$(cat /run/32/tandemd.pid) ]; do sleep 0.1; done
head -c $before /root/32.disk >/root/64.disk.data
truncate -s 64M /root/64.disk.data
mv /root/64.disk.data /root/64.disk
serve 64
echo more >/mnt/more
sync
resize
after=$(blockdev --getsize64 /dev/drbd1)
echo "$before bytes, then $after"
[ $after -gt $((before * 19 / 10)) ]
resize2fs "$(findmnt -no SOURCE /mnt)" 2>&1
head -c 30000000 /dev/zero >/mnt/large
sync
umount /mnt
e2fsck -fn /dev/drbd1
mount /dev/drbd1 /mnt
[ "$(sha256sum </mnt/file)" = "$sum" ]
[ $(stat -c %s /mnt/large) = 30000000 ]
umount /mnt
