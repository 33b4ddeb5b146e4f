"""How redock is packaged."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def find_version() -> str:
    """Read the version without importing the package."""
    source = (HERE / "redock" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert match is not None
    return match.group(1)


def find_requirements() -> list[str]:
    """Read what the package needs at run time."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="redock",
    version=find_version(),
    description="A human friendly wrapper around Docker: containers you can SSH into",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    packages=find_packages(include=["redock", "redock.*"]),
    # As it is by default; said aloud, an editable installation is one line with a path, and not a
    # program that takes longer than "redock list" each time Python starts.
    package_dir={"": "."},
    package_data={"redock": ["py.typed", "cluster/*.c", "cluster/page.*"]},
    # Where "man redock" looks, in a virtual environment as well.
    data_files=[("share/man/man1", ["docs/redock.1"])],
    python_requires=">=3.11",
    install_requires=find_requirements(),
    extras_require={
        "pytest": ["pytest>=8"],
        "templates": ["Jinja2>=3.1"],
        "dev": [
            "ansible-core",
            "furo",
            "hypothesis",
            "mypy",
            "pytest>=8",
            "pytest-testinfra",
            "pytest-xdist",
            "ruff",
            "sphinx>=8",
            "types-docker",
        ],
    },
    entry_points={
        "console_scripts": ["redock = redock.cli:main"],
        "pytest11": ["redock = redock.pytest_plugin"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Systems Administration",
        "Typing :: Typed",
    ],
)
