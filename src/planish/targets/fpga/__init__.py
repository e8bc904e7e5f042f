"""Custom hardware: a quantized graph as SystemVerilog, equal to it bit for bit."""
