"""The runtime below real engines: podman, containerd. See README.md."""
