// A part of one axis: the other beats are taken and dropped.
//
// Parameters   WIDTH  bits of a beat
//              SIZE   of the axis
//              INNER  beats of one place of the axis
//              START, STOP, STEP  places that stay: START, START + STEP and so on, below STOP
// Ports        in, out  WIDTH
// Latency      0
// Interval     1 cycle a beat that comes in
module slice #(
    parameter int WIDTH = 8,
    parameter int SIZE  = 6,
    parameter int INNER = 2,
    parameter int START = 1,
    parameter int STOP  = 6,
    parameter int STEP  = 2
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
  localparam int InnerBits = INNER > 1 ? $clog2(INNER) : 1;
  localparam int PlaceBits = SIZE > 1 ? $clog2(SIZE) : 1;
  localparam int Last = START + (STOP - START - 1) / STEP * STEP;  // the last place that stays

  logic [InnerBits-1:0] beat;
  logic [PlaceBits-1:0] place, next;  // `next` is the next one that stays
  logic stays, last_beat, last_place;
  assign stays      = place == next;
  assign last_beat  = beat == InnerBits'(INNER - 1);
  assign last_place = place == PlaceBits'(SIZE - 1);

  assign out_data  = in_data;
  assign out_valid = in_valid && stays;
  assign in_ready  = out_ready || !stays;

  always_ff @(posedge clk) begin
    if (rst) begin
      beat  <= '0;
      place <= '0;
      next  <= PlaceBits'(START);
    end else if (in_valid && in_ready) begin
      beat <= last_beat ? '0 : beat + 1'b1;
      if (last_beat) begin
        place <= last_place ? '0 : place + 1'b1;
        if (last_place) next <= PlaceBits'(START);
        else if (stays && place != PlaceBits'(Last)) next <= next + PlaceBits'(STEP);
      end
    end
  end
endmodule
