"""Telling engines about this runtime: ``install``. Never on the way of a container; may use the standard library."""
