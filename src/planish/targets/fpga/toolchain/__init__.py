"""The open tools: simulation by Verilator, synthesis by yosys, place and route by nextpnr; each found, run and read."""
