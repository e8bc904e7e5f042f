// Takes beats with random pauses, and compares them with those of a file. Simulation only.
//
// Parameters   WIDTH  bits of a beat
//              BEATS  lines of FILE, hexadecimal
//              STALL  percent of the cycles in which nothing is taken
// Ports        taken, wrong   beats so far, and those that differ
module sink #(
    parameter int WIDTH = 8,
    parameter int BEATS = 1,
    parameter     FILE  = "",
    parameter int STALL = 30
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output int               taken,
    output int               wrong
);
  logic [WIDTH-1:0] beats[BEATS];

  initial $readmemh(FILE, beats);

  always_ff @(posedge clk) begin
    in_ready <= !rst && $urandom_range(99) >= STALL;
    if (rst) begin
      taken <= 0;
      wrong <= 0;
    end else if (in_valid && in_ready && taken < BEATS) begin
      taken <= taken + 1;
      if (in_data !== beats[taken]) begin
        wrong <= wrong + 1;
        $display("%m: beat %0d is %h, not %h", taken, in_data, beats[taken]);
      end
    end
  end
endmodule
