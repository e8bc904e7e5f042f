// Bits that come out some cycles later: what goes along with numbers through a pipeline.
//
// Parameters   BITS    width
//              CYCLES  how much later; 0 is only wires
// Ports        ce   the registers move
//              in   BITS
//              out  BITS, zero after reset
// Latency      CYCLES
// Interval     1 cycle
module delay #(
    parameter int BITS   = 1,
    parameter int CYCLES = 2
) (
    input  logic            clk,
    input  logic            rst,
    input  logic            ce,
    input  logic [BITS-1:0] in,
    output logic [BITS-1:0] out
);
  if (CYCLES == 0) begin : g_wires
    assign out = in;
    logic unused;
    assign unused = clk | rst | ce;
  end else begin : g_registers
    logic [BITS-1:0] stages[CYCLES];
    always_ff @(posedge clk) begin
      if (rst) begin
        for (int i = 0; i < CYCLES; i++) stages[i] <= '0;
      end else if (ce) begin
        stages[0] <= in;
        for (int i = 1; i < CYCLES; i++) stages[i] <= stages[i-1];
      end
    end
    assign out = stages[CYCLES-1];
  end
endmodule
