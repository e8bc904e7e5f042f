"""The operations of the integer program, by theme."""
