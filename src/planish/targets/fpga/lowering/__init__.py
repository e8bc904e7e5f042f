"""How steps of a prepared graph become operations of the integer program, by theme."""
