// Two streams one after the other along an axis: some beats of the one, then some of the other.
//
// Parameters   A_WIDTH, A_SIGNED, B_WIDTH, B_SIGNED  of a number
//              LANES             numbers in a beat
//              A_BEATS, B_BEATS  beats of each turn
//              OUT_WIDTH         bits of a number that goes out, enough for both
// Ports        a    LANES * A_WIDTH
//              b    LANES * B_WIDTH
//              out  LANES * OUT_WIDTH
// Latency      0
// Interval     1 cycle a beat
module concat #(
    parameter int LANES     = 2,
    parameter int A_WIDTH   = 8,
    parameter bit A_SIGNED  = 1'b1,
    parameter int A_BEATS   = 3,
    parameter int B_WIDTH   = 8,
    parameter bit B_SIGNED  = 1'b1,
    parameter int B_BEATS   = 2,
    parameter int OUT_WIDTH = 8
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       a_valid,
    output logic                       a_ready,
    input  logic [  LANES*A_WIDTH-1:0] a_data,
    input  logic                       b_valid,
    output logic                       b_ready,
    input  logic [  LANES*B_WIDTH-1:0] b_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  localparam int Most = A_BEATS > B_BEATS ? A_BEATS : B_BEATS;
  localparam int Bits = Most > 1 ? $clog2(Most) : 1;

  logic second;  // the turn of b
  logic [Bits-1:0] beat;
  assign out_valid = second ? b_valid : a_valid;
  assign a_ready   = out_ready && !second;
  assign b_ready   = out_ready && second;

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [OUT_WIDTH-1:0] a, b;
    assign a = OUT_WIDTH'($signed({A_SIGNED & a_data[i*A_WIDTH+A_WIDTH-1], a_data[i*A_WIDTH+:A_WIDTH]}));
    assign b = OUT_WIDTH'($signed({B_SIGNED & b_data[i*B_WIDTH+B_WIDTH-1], b_data[i*B_WIDTH+:B_WIDTH]}));
    assign out_data[i*OUT_WIDTH+:OUT_WIDTH] = second ? b : a;
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      second <= 1'b0;
      beat   <= '0;
    end else if (out_valid && out_ready) begin
      if (beat == Bits'((second ? B_BEATS : A_BEATS) - 1)) begin
        second <= !second;
        beat   <= '0;
      end else begin
        beat <= beat + 1'b1;
      end
    end
  end
endmodule
