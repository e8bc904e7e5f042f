"""What the pass Prepare does to a graph, by theme."""
