// Numbers that are always the same, sample after sample.
//
// Parameters   LANES  numbers in a beat
//              WIDTH  bits of a number
//              BEATS  of a sample
//              BLOCK  1: numbers in block RAM, 0: in LUTs
//              WORDS  file of BEATS words of LANES numbers, lane 0 lowest
// Ports        out  LANES * WIDTH
// Latency      3 cycles from reset
// Interval     1 cycle a beat
module constant #(
    parameter int LANES = 2,
    parameter int WIDTH = 8,
    parameter int BEATS = 4,
    parameter bit BLOCK = 1'b0,
    parameter WORDS = ""
) (
    input  logic                   clk,
    input  logic                   rst,
    output logic                   out_valid,
    input  logic                   out_ready,
    output logic [LANES*WIDTH-1:0] out_data
);
  localparam int Bits = BEATS > 1 ? $clog2(BEATS) : 1;
  logic step, asked;
  logic [Bits-1:0] beat;
  assign step = !out_valid || out_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      beat               <= '0;
      {out_valid, asked} <= '0;
    end else if (step) begin
      beat               <= beat == Bits'(BEATS - 1) ? '0 : beat + 1'b1;
      {out_valid, asked} <= {asked, 1'b1};
    end
  end
  rom #(.WIDTH(LANES * WIDTH), .DEPTH(BEATS), .BLOCK(BLOCK), .WORDS(WORDS)) numbers (
      .clk, .ce(step), .address(beat), .word(out_data)
  );
endmodule
