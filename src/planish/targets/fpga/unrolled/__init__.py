"""Fully unrolled: a small program as one pipelined circuit that takes a sample each cycle."""
