#!/bin/sh
# Turn a fresh Debian tree into the lab's guest. mmdebstrap calls this outside of the tree: $1 is its root.
set -eu
root=$1
here=$(dirname "$(readlink -f "$0")")

echo lab >"$root/etc/hostname"
printf '127.0.0.1 localhost lab\n::1 localhost\n' >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
: >"$root/etc/fstab"
printf "%s\n" virtio_console virtio_net fuse overlay loop tun veth bridge dummy bfq null_blk >"$root/etc/modules-load.d/lab.conf"

# What only costs time, or waits for what is not there.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    logrotate.timer man-db.timer systemd-tmpfiles-clean.timer podman-auto-update.timer podman-auto-update.service \
    podman.service podman.socket podman-restart.service podman-clean-transient.service getty@tty1.service getty.target \
    serial-getty@ttyS0.service console-getty.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-random-seed.service systemd-journal-flush.service systemd-firstboot.service systemd-sysusers.service \
    systemd-repart.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pcrphase-initrd.service \
    systemd-pcrmachine.service proc-sys-fs-binfmt_misc.automount systemd-binfmt.service cryptsetup.target \
    systemd-timesyncd.service systemd-journal-catalog-update.service ldconfig.service systemd-hwdb-update.service \
    systemd-machine-id-commit.service networking.service nftables.service criu.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system/user@.service.d" \
    "$root/etc/systemd/system/multi-user.target.wants" "$root/var/lib/systemd/linger" "$root/etc/containers"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
# cpu, cpuset and io for users, too: the default leaves them memory and pids.
printf '[Service]\nDelegate=yes\n' >"$root/etc/systemd/system/user@.service.d/delegate.conf"

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash lab
echo lab:400000:65536 >"$root/etc/subuid"
echo lab:400000:65536 >"$root/etc/subgid"
: >"$root/var/lib/systemd/linger/lab"

cat >"$root/etc/containers/containers.conf" <<'END'
[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "ociruntime"]
[engine.runtimes]
ociruntime = ["/usr/local/bin/ociruntime"]
END

install -D -m 644 "$here/agent.py" "$root/usr/local/lib/lab/agent.py"
cat >"$root/etc/systemd/system/lab-agent.service" <<'END'
[Unit]
Description=Commands for the host
After=multi-user.target
[Service]
ExecStart=/usr/bin/python3 -I /usr/local/lib/lab/agent.py
Environment=HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Restart=always
# So that systemd enables every controller that it knows and keeps it enabled.
Delegate=yes
KillMode=process
OOMScoreAdjust=-900
OOMPolicy=continue
LimitNOFILE=65536
TasksMax=infinity
[Install]
WantedBy=default.target
END
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -sf ../lab-agent.service "$root/etc/systemd/system/default.target.wants/lab-agent.service"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/locale
