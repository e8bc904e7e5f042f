"""Claims about the FPGA target."""
