"""The lab: a virtual machine with systemd, cgroup v2 alone and AppArmor. README.md has the rest."""
