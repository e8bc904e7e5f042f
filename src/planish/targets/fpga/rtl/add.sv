// The sum of two streams, each shifted to the common point and perhaps subtracted. Each may be whole, or be repeated: a
// row that meets every row, or a number (a beat of one lane, which goes to every lane) that meets a whole row.
//
// Parameters   LANES      numbers in a beat that goes out
//              A_LANES    numbers in a beat of `a`: LANES or 1
//              A_WIDTH    bits of a number of `a`
//              A_SIGNED   1: two's complement, 0: unsigned
//              A_SHIFT    bits to the left
//              A_MINUS    1: is subtracted
//              A_BEATS    beats of `a` that are repeated together
//              A_TIMES    how often they are; 1: `a` is whole
//              B_*        the same for `b`
//              OUT_WIDTH  bits of a sum
// Ports        a    A_LANES * A_WIDTH
//              b    B_LANES * B_WIDTH
//              out  LANES * OUT_WIDTH
// Latency      1 cycle, and 1 more where an input is repeated
// Interval     1 cycle a beat
module add #(
    parameter int LANES     = 2,
    parameter int A_LANES   = 2,
    parameter int A_WIDTH   = 8,
    parameter bit A_SIGNED  = 1'b1,
    parameter int A_SHIFT   = 0,
    parameter bit A_MINUS   = 1'b0,
    parameter int A_BEATS   = 1,
    parameter int A_TIMES   = 1,
    parameter int B_LANES   = 1,
    parameter int B_WIDTH   = 8,
    parameter bit B_SIGNED  = 1'b1,
    parameter int B_SHIFT   = 0,
    parameter bit B_MINUS   = 1'b0,
    parameter int B_BEATS   = 1,
    parameter int B_TIMES   = 4,
    parameter int OUT_WIDTH = 9
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       a_valid,
    output logic                       a_ready,
    input  logic [A_LANES*A_WIDTH-1:0] a_data,
    input  logic                       b_valid,
    output logic                       b_ready,
    input  logic [B_LANES*B_WIDTH-1:0] b_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  logic x_valid, y_valid, step;
  logic [A_LANES*A_WIDTH-1:0] x;
  logic [B_LANES*B_WIDTH-1:0] y;

  replay #(.BITS(A_LANES * A_WIDTH), .BEATS(A_BEATS), .TIMES(A_TIMES)) repeat_a (
      .clk, .rst,
      .in_valid(a_valid), .in_ready(a_ready), .in_data(a_data),
      .out_valid(x_valid), .out_ready(step && y_valid), .out_data(x)
  );
  replay #(.BITS(B_LANES * B_WIDTH), .BEATS(B_BEATS), .TIMES(B_TIMES)) repeat_b (
      .clk, .rst,
      .in_valid(b_valid), .in_ready(b_ready), .in_data(b_data),
      .out_valid(y_valid), .out_ready(step && x_valid), .out_data(y)
  );

  assign step = !out_valid || out_ready;
  always_ff @(posedge clk) begin
    if (rst) out_valid <= 1'b0;
    else if (step) out_valid <= x_valid && y_valid;
  end

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    localparam int A = A_LANES == 1 ? 0 : i;
    localparam int B = B_LANES == 1 ? 0 : i;
    logic [OUT_WIDTH-1:0] a, b, sum;
    assign a = OUT_WIDTH'($signed({A_SIGNED & x[A*A_WIDTH+A_WIDTH-1], x[A*A_WIDTH+:A_WIDTH]})) << A_SHIFT;
    assign b = OUT_WIDTH'($signed({B_SIGNED & y[B*B_WIDTH+B_WIDTH-1], y[B*B_WIDTH+:B_WIDTH]})) << B_SHIFT;
    if (A_MINUS && B_MINUS) begin : g_neither
      assign sum = '0 - a - b;
    end else if (A_MINUS) begin : g_b
      assign sum = b - a;
    end else if (B_MINUS) begin : g_a
      assign sum = a - b;
    end else begin : g_both
      assign sum = a + b;
    end
    always_ff @(posedge clk) if (step) out_data[i*OUT_WIDTH+:OUT_WIDTH] <= sum;
  end
endmodule
