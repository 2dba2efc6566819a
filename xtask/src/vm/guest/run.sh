#!/bin/sh
# Unpacks the host's payload, runs it, and hands back its output, its exit code and the files it left in /out.
ports=/dev/virtio-ports
exec >"$ports/t3.stdout" 2>&1 </dev/null
mkdir -p /opt/t3 /out
if tar -xf /dev/disk/by-id/virtio-t3payload -C /opt/t3; then
    cd /opt/t3 || exit 1
    export PATH="/opt/t3/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root
    /opt/t3/run.sh
    code=$?
    # The payload wants a reboot: what there is to hand back comes after it.
    test -e /run/t3-vm.reboot && touch /var/lib/t3-vm.rebooted && exit 0
else
    echo "the payload disk cannot be unpacked"
    code=125
fi
journalctl --boot --no-pager --output=short-monotonic >/out/journal.txt 2>&1
tar -cf "$ports/t3.out" -C /out .
echo "exit $code" >"$ports/t3.exit"
