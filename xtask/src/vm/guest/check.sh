#!/bin/sh
# Checks that this guest offers what the tests build on. First argument: how the kernel's version must begin.
passed=0
failed=0

check() { # NAME COMMAND…
    name=$1
    shift
    if "$@" >/tmp/check.log 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        sed 's/^/        /' /tmp/check.log
    fi
}
kernel_is() { case $(uname -r) in "$1"*) ;; *) uname -r && return 1 ;; esac; }
systemd_is_init() { test "$(cat /proc/1/comm)" = systemd; }
psi() { grep -H some /proc/pressure/cpu /proc/pressure/io /proc/pressure/memory; }
cgroup_v2() { test "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs; }
cgroup_psi() { grep -H some /sys/fs/cgroup/system.slice/cpu.pressure /sys/fs/cgroup/system.slice/memory.pressure; }
journald() { echo t3-vm-check | systemd-cat -t t3-vm-check && journalctl --sync && journalctl -t t3-vm-check -o cat | grep t3-vm-check; }
tracefs() { test -d /sys/kernel/tracing/events/sock/inet_sock_set_state; }
kprobes() {
    echo 'p:t3check tcp_close' >/sys/kernel/tracing/kprobe_events &&
        grep t3check /sys/kernel/tracing/kprobe_events && : >/sys/kernel/tracing/kprobe_events
}
unit_in_its_cgroup() {
    systemd-run --unit t3-serve@demo sleep 60 &&
        pid=$(systemctl show -P MainPID t3-serve@demo.service) && cat "/proc/$pid/cgroup" &&
        grep 't3-serve@demo.service$' "/proc/$pid/cgroup" &&
        grep some "/sys/fs/cgroup$(cut -d: -f3 "/proc/$pid/cgroup")/memory.pressure" &&
        systemctl stop t3-serve@demo.service
}

check "kernel $1*" kernel_is "$1"
check "systemd is PID 1" systemd_is_init
check "BTF of the kernel" test -s /sys/kernel/btf/vmlinux
check "PSI of the machine" psi
check "cgroup v2" cgroup_v2
check "PSI of a cgroup" cgroup_psi
check "journald keeps what it is given" journald
check "tracepoints" tracefs
check "kprobes" kprobes
check "a t3-serve@demo unit in its own cgroup, with PSI" unit_in_its_cgroup
echo "$passed passed, $failed failed"
test "$failed" = 0
