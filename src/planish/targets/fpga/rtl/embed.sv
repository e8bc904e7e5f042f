// Rows of a table, chosen by numbers.
//
// Parameters   LANES     numbers in a beat that goes out
//              WIDTH     bits of each
//              IN_WIDTH  bits of the number that chooses, unsigned
//              ROWS      rows of the table
//              BEATS     beats of a row
//              TABLE     file of ROWS * BEATS words of LANES * WIDTH bits
// Ports        in   IN_WIDTH
//              out  LANES * WIDTH, BEATS beats for each number that comes in
// Latency      3 cycles
// Interval     BEATS cycles a number
module embed #(
    parameter int LANES    = 2,
    parameter int WIDTH    = 8,
    parameter int IN_WIDTH = 4,
    parameter int ROWS     = 10,
    parameter int BEATS    = 3,
    parameter     TABLE    = ""
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   in_valid,
    output logic                   in_ready,
    input  logic [   IN_WIDTH-1:0] in_data,
    output logic                   out_valid,
    input  logic                   out_ready,
    output logic [LANES*WIDTH-1:0] out_data
);
  localparam int Words = ROWS * BEATS;
  localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;
  localparam int BeatBits = BEATS > 1 ? $clog2(BEATS) : 1;

  logic step, last, chosen;
  logic [BeatBits-1:0] beat;
  logic [AddressBits-1:0] address, first;
  assign step     = !out_valid || out_ready;
  assign last     = beat == BeatBits'(BEATS - 1);
  assign in_ready = step && (!chosen || last);

  // As a sum of shifts: a product of numbers would take a DSP block.
  always_comb begin
    first = '0;
    for (int i = 0; i < AddressBits; i++) if ((BEATS >> i & 1) != 0) first += AddressBits'(in_data) << i;
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      chosen <= 1'b0;
      beat   <= '0;
    end else if (step) begin
      if (in_ready) chosen <= in_valid;
      if (chosen) beat <= last ? '0 : beat + 1'b1;
    end
    if (step) address <= chosen && !last ? address + 1'b1 : first;
  end

  rom #(.WIDTH(LANES * WIDTH), .DEPTH(Words), .BLOCK(Words * LANES * WIDTH > 2048), .WORDS(TABLE)) rows (
      .clk, .ce(step), .address, .word(out_data)
  );
  delay #(.BITS(1), .CYCLES(2)) valid (.clk, .rst, .ce(step), .in(chosen), .out(out_valid));
endmodule
