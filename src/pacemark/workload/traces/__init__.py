"""Traces: what was asked of a service, when, and how long it was, as those who run one have written it down.

One file for each family. A format says by the first row's keys whether it is its own, and turns each record into rows,
or says why not. To add one: a class in such a file, and its name in `formats.py`.
"""
