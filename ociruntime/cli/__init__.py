"""The command line: a thin skin over ``ociruntime.Runtime``."""
