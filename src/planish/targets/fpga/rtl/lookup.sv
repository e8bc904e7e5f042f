// Any function of one number: each is replaced by its entry of a table.
//
// Parameters   LANES      numbers in a beat, each with a copy of the table
//              WIDTH      bits of a number, which is the address, whatever its sign
//              OUT_WIDTH  bits of an entry
//              BLOCK      1: table in block RAM, 0: in LUTs
//              TABLE      file of 2**WIDTH entries
// Ports        in   LANES * WIDTH
//              out  LANES * OUT_WIDTH
// Latency      2 cycles
// Interval     1 cycle a beat
module lookup #(
    parameter int LANES     = 1,
    parameter int WIDTH     = 8,
    parameter int OUT_WIDTH = 8,
    parameter bit BLOCK     = 1'b1,
    parameter TABLE = ""
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [    LANES*WIDTH-1:0] in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  logic step, found;
  assign step     = !out_valid || out_ready;
  assign in_ready = step;
  always_ff @(posedge clk) begin
    if (rst) {out_valid, found} <= '0;
    else if (step) {out_valid, found} <= {found, in_valid};
  end
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    rom #(.WIDTH(OUT_WIDTH), .DEPTH(1 << WIDTH), .BLOCK(BLOCK), .WORDS(TABLE)) entries (
        .clk, .ce(step), .address(in_data[i*WIDTH+:WIDTH]), .word(out_data[i*OUT_WIDTH+:OUT_WIDTH])
    );
  end
endmodule
