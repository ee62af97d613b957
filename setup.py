"""Metadata, and the module that cffi compiles. Settings of tools are in pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "ociruntime" / "__init__.py").read_text("utf-8"))


class BuildPy(build_py):
    """The package includes the validator that is generated from the schemas."""

    def run(self) -> None:
        """Generate, then build as usual."""
        command = [sys.executable, "spec/generate_validator.py", "ociruntime/config/_generated.py"]
        subprocess.run(command, cwd=HERE, check=True)
        super().run()


setup(
    name="ociruntime",
    version=VERSION.group(1) if VERSION else "0",
    description="OCI-compatible low-level container runtime",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: System :: Systems Administration",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["ociruntime", "ociruntime.*"]),
    package_data={"ociruntime": ["py.typed", "shim/*.pyi"]},
    cmdclass={"build_py": BuildPy},
    cffi_modules=["cffi_build/build_shim.py:ffi"],
    setup_requires=["cffi>=1.15"],
    install_requires=["cffi>=1.15", "jeepney>=0.8", "jsonschema>=4.18", "pyroute2>=0.7"],
    extras_require={
        # where the distribution has no libseccomp bindings of its own (Debian: python3-seccomp)
        "seccomp": ["pyseccomp>=0.1.2"],
        "dev": [
            "coverage>=7",
            "grpcio>=1.60",
            "grpcio-tools>=1.60",
            "hypothesis>=6",
            "mypy>=1.10",
            "pexpect>=4.9",
            "pytest>=8",
            "ruff>=0.6",
            "types-cffi",
            "types-jsonschema",
            "types-pexpect",
            "websocket-client>=1.7",
        ],
    },
    entry_points={"console_scripts": ["ociruntime = ociruntime.__main__:script"]},
    zip_safe=False,
)
