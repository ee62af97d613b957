"""What the integration tests are made of: probe, bundle, runtime, container, leaks, host."""
