"""The version, which CHANGELOG.md names too."""

__version__ = "0.2.0"
