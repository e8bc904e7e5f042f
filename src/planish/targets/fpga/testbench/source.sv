// Offers the beats of a file, one after the other, with random pauses. Simulation only.
//
// Parameters   WIDTH  bits of a beat
//              BEATS  lines of FILE, hexadecimal
//              STALL  percent of the cycles in which nothing new is offered
module source #(
    parameter int WIDTH = 8,
    parameter int BEATS = 1,
    parameter     FILE  = "",
    parameter int STALL = 30
) (
    input  logic             clk,
    input  logic             rst,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
  logic [WIDTH-1:0] beats[BEATS];
  int               place;

  initial $readmemh(FILE, beats);

  always_ff @(posedge clk) begin
    if (rst) begin
      out_valid <= 1'b0;
      place     <= 0;
    end else if (!out_valid || out_ready) begin
      out_valid <= 1'b0;
      if (place < BEATS && $urandom_range(99) >= STALL) begin
        out_valid <= 1'b1;
        out_data  <= beats[place];
        place     <= place + 1;
      end
    end
  end
endmodule
