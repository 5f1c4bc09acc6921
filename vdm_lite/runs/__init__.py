"""Runs that take longer than a chapter may: each writes a results file that the library ships."""
