// The element-wise product of two streams. Each may be whole, or be repeated: a row that meets every row, or a number
// (a beat of one lane, which goes to every lane) that meets a whole row.
//
// Parameters   LANES      numbers in a beat that goes out
//              A_LANES    numbers in a beat of `a`: LANES or 1
//              A_WIDTH    bits of a number of `a`
//              A_SIGNED   1: two's complement, 0: unsigned
//              A_BEATS    beats of `a` that are repeated together
//              A_TIMES    how often they are; 1: `a` is whole
//              B_*        the same for `b`
//              OUT_WIDTH  bits of a product
//              DSP        1: multiply in DSP blocks
// Ports        a    A_LANES * A_WIDTH
//              b    B_LANES * B_WIDTH
//              out  LANES * OUT_WIDTH
// Latency      3 cycles, and 1 more where an input is repeated
// Interval     1 cycle a beat
module multiply #(
    parameter int LANES     = 2,
    parameter int A_LANES   = 2,
    parameter int A_WIDTH   = 8,
    parameter bit A_SIGNED  = 1'b1,
    parameter int A_BEATS   = 1,
    parameter int A_TIMES   = 1,
    parameter int B_LANES   = 1,
    parameter int B_WIDTH   = 8,
    parameter bit B_SIGNED  = 1'b1,
    parameter int B_BEATS   = 1,
    parameter int B_TIMES   = 4,
    parameter int OUT_WIDTH = 16,
    parameter bit DSP       = 1'b1
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
  localparam int Latency = 3;

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
  delay #(.BITS(1), .CYCLES(Latency)) valid (.clk, .rst, .ce(step), .in(x_valid && y_valid), .out(out_valid));

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    localparam int A = A_LANES == 1 ? 0 : i;
    localparam int B = B_LANES == 1 ? 0 : i;
    logic [A_WIDTH+B_WIDTH-1:0] product;
    mult #(.A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .B_WIDTH(B_WIDTH), .B_SIGNED(B_SIGNED), .DSP(DSP)) times (
        .clk, .ce(step), .a(x[A*A_WIDTH+:A_WIDTH]), .b(y[B*B_WIDTH+:B_WIDTH]), .product
    );
    logic unused;  // what is known to be a copy of the sign, or zero
    assign unused = ^product;
    assign out_data[i*OUT_WIDTH+:OUT_WIDTH] = A_SIGNED || B_SIGNED ? OUT_WIDTH'($signed(product)) : OUT_WIDTH'(product);
  end
endmodule
