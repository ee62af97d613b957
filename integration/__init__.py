"""Black-box tests: they see a runtime only through its command line. See README.md."""
