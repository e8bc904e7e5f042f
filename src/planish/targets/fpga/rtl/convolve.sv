// A convolution: windows, each a vector, through a folded matrix; groups of channels have matrices of their own.
//
// Parameters   as of window (BEATS: of a place's channels of a group; WIDTH: SIMD * IN_WIDTH) and of matvec
// Ports        in   SIMD * IN_WIDTH
//              out  PE * OUT_WIDTH
// Latency      the slices of the first row of windows, then as matvec
// Interval     PASSES cycles for each beat of all windows
module convolve #(
    parameter int SIZE_0       = 5,
    parameter int SIZE_1       = 5,
    parameter int SIZE_2       = 1,
    parameter int KERNEL_0     = 3,
    parameter int KERNEL_1     = 3,
    parameter int KERNEL_2     = 1,
    parameter int STRIDE_0     = 1,
    parameter int STRIDE_1     = 1,
    parameter int STRIDE_2     = 1,
    parameter int DILATION_0   = 1,
    parameter int DILATION_1   = 1,
    parameter int DILATION_2   = 1,
    parameter int BEFORE_0     = 1,
    parameter int BEFORE_1     = 1,
    parameter int BEFORE_2     = 0,
    parameter int COUNT_0      = 5,
    parameter int COUNT_1      = 5,
    parameter int COUNT_2      = 1,
    parameter int LINES        = 4,
    parameter int SIMD         = 1,
    parameter int PE           = 2,
    parameter int IN_WIDTH     = 6,
    parameter bit IN_SIGNED    = 1'b0,
    parameter int BEATS        = 2,
    parameter int PASSES       = 2,
    parameter int GROUPS       = 1,
    parameter int STYLE        = 2,
    parameter int WEIGHT_WIDTH = 6,
    parameter int HIGH_WIDTH   = 6,
    parameter int SPLIT        = 12,
    parameter bit WEIGHT_BLOCK = 1'b0,
    parameter WEIGHTS = "",
    parameter bit BIAS         = 1'b1,
    parameter BIASES = "",
    parameter int OUT_WIDTH    = 18
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     in_valid,
    output logic                     in_ready,
    input  logic [SIMD*IN_WIDTH-1:0] in_data,
    output logic                     out_valid,
    input  logic                     out_ready,
    output logic [PE*OUT_WIDTH-1:0]  out_data
);
  logic valid, ready;
  logic [SIMD*IN_WIDTH-1:0] data;

  window #(
      .WIDTH(SIMD * IN_WIDTH), .SIZE_0(SIZE_0), .SIZE_1(SIZE_1), .SIZE_2(SIZE_2),
      .KERNEL_0(KERNEL_0), .KERNEL_1(KERNEL_1), .KERNEL_2(KERNEL_2),
      .STRIDE_0(STRIDE_0), .STRIDE_1(STRIDE_1), .STRIDE_2(STRIDE_2),
      .DILATION_0(DILATION_0), .DILATION_1(DILATION_1), .DILATION_2(DILATION_2),
      .BEFORE_0(BEFORE_0), .BEFORE_1(BEFORE_1), .BEFORE_2(BEFORE_2),
      .COUNT_0(COUNT_0), .COUNT_1(COUNT_1), .COUNT_2(COUNT_2),
      .GROUPS(GROUPS), .BEATS(BEATS), .LINES(LINES)
  ) windows (
      .clk, .rst, .in_valid, .in_ready, .in_data, .out_valid(valid), .out_ready(ready), .out_data(data)
  );
  matvec #(
      .SIMD(SIMD), .PE(PE), .IN_WIDTH(IN_WIDTH), .IN_SIGNED(IN_SIGNED),
      .BEATS(KERNEL_0 * KERNEL_1 * KERNEL_2 * BEATS), .PASSES(PASSES), .GROUPS(GROUPS), .STYLE(STYLE),
      .WEIGHT_WIDTH(WEIGHT_WIDTH), .HIGH_WIDTH(HIGH_WIDTH), .SPLIT(SPLIT), .WEIGHT_BLOCK(WEIGHT_BLOCK),
      .WEIGHTS(WEIGHTS), .BIAS(BIAS), .BIASES(BIASES), .OUT_WIDTH(OUT_WIDTH)
  ) matrix (
      .clk, .rst, .in_valid(valid), .in_ready(ready), .in_data(data), .out_valid, .out_ready, .out_data
  );
endmodule
