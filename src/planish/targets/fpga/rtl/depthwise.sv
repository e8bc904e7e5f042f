// A convolution in which each channel has a kernel of its own: LANES channels at once, a place of the kernel a cycle.
//
// Parameters   as of window (GROUPS: beats of a row of channels; BEATS is 1), and
//              LANES                channels in a beat
//              IN_WIDTH, IN_SIGNED  of the input's numbers
//              WEIGHT_WIDTH         bits of a weight, two's complement
//              WEIGHT_BLOCK         1: weights in block RAM, 0: in LUTs
//              WEIGHTS              file of words of LANES weights: for each beat of channels, the kernel's places
//              BIAS, BIASES         1: there is a bias; file of GROUPS words of LANES biases
//              OUT_WIDTH            bits of a result; sums on the way may wrap
//              DSP                  1: multiply in DSP blocks
// Ports        in   LANES * IN_WIDTH
//              out  LANES * OUT_WIDTH
// Latency      the slices of the first row of windows, the places of the kernel, and 7 cycles
// Interval     1 cycle for each place of the kernel and beat of the output
module depthwise #(
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
    parameter int GROUPS       = 3,
    parameter int LANES        = 2,
    parameter int IN_WIDTH     = 6,
    parameter bit IN_SIGNED    = 1'b0,
    parameter int WEIGHT_WIDTH = 6,
    parameter bit WEIGHT_BLOCK = 1'b0,
    parameter WEIGHTS = "",
    parameter bit BIAS         = 1'b1,
    parameter BIASES = "",
    parameter int OUT_WIDTH    = 16,
    parameter bit DSP          = 1'b1
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [ LANES*IN_WIDTH-1:0] in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  localparam int Taps = KERNEL_0 * KERNEL_1 * KERNEL_2;
  localparam int TapBits = Taps > 1 ? $clog2(Taps) : 1;
  localparam int Depth = GROUPS * Taps;
  localparam int DepthBits = Depth > 1 ? $clog2(Depth) : 1;
  localparam int GroupBits = GROUPS > 1 ? $clog2(GROUPS) : 1;
  localparam int Product = IN_WIDTH + WEIGHT_WIDTH;
  localparam int Multiplied = 5;  // cycles from the window's beat to its products

  logic valid, step;
  logic [LANES*IN_WIDTH-1:0] data, found, x;
  window #(
      .WIDTH(LANES * IN_WIDTH), .SIZE_0(SIZE_0), .SIZE_1(SIZE_1), .SIZE_2(SIZE_2),
      .KERNEL_0(KERNEL_0), .KERNEL_1(KERNEL_1), .KERNEL_2(KERNEL_2),
      .STRIDE_0(STRIDE_0), .STRIDE_1(STRIDE_1), .STRIDE_2(STRIDE_2),
      .DILATION_0(DILATION_0), .DILATION_1(DILATION_1), .DILATION_2(DILATION_2),
      .BEFORE_0(BEFORE_0), .BEFORE_1(BEFORE_1), .BEFORE_2(BEFORE_2),
      .COUNT_0(COUNT_0), .COUNT_1(COUNT_1), .COUNT_2(COUNT_2),
      .GROUPS(GROUPS), .BEATS(1), .LINES(LINES)
  ) windows (
      .clk, .rst, .in_valid, .in_ready, .in_data, .out_valid(valid), .out_ready(step), .out_data(data)
  );

  assign step = !out_valid || out_ready;

  logic [TapBits-1:0] tap;
  logic [DepthBits-1:0] address;
  logic [GroupBits-1:0] group;
  logic last;
  assign last = tap == TapBits'(Taps - 1);
  always_ff @(posedge clk) begin
    if (rst) begin
      tap     <= '0;
      address <= '0;
      group   <= '0;
    end else if (step && valid) begin
      tap     <= last ? '0 : tap + 1'b1;
      address <= address == DepthBits'(Depth - 1) ? '0 : address + 1'b1;
      if (last) group <= group == GroupBits'(GROUPS - 1) ? '0 : group + 1'b1;
    end
    if (step) begin
      found <= data;
      x     <= found;
    end
  end

  logic [LANES*WEIGHT_WIDTH-1:0] weights;
  rom #(.WIDTH(LANES * WEIGHT_WIDTH), .DEPTH(Depth), .BLOCK(WEIGHT_BLOCK), .WORDS(WEIGHTS)) weight_rom (
      .clk, .ce(step), .address, .word(weights)
  );

  // Beside the products: whether there are any, whether they are the last of their window, and its biases.
  logic arrives, completes;
  logic [GroupBits-1:0] group_later;
  delay #(.BITS(2), .CYCLES(Multiplied)) flags (
      .clk, .rst, .ce(step), .in({valid, last}), .out({arrives, completes})
  );
  delay #(.BITS(GroupBits), .CYCLES(Multiplied - 2)) groups (.clk, .rst, .ce(step), .in(group), .out(group_later));
  logic [LANES*OUT_WIDTH-1:0] biases;
  if (BIAS) begin : g_bias
    rom #(.WIDTH(LANES * OUT_WIDTH), .DEPTH(GROUPS), .WORDS(BIASES)) bias_rom (
        .clk, .ce(step), .address(group_later), .word(biases)
    );
  end else begin : g_no_bias
    assign biases = '0;
    logic unused;
    assign unused = &group_later;
  end

  logic begins;
  always_ff @(posedge clk) begin
    if (rst) begin
      begins    <= 1'b1;
      out_valid <= 1'b0;
    end else if (step) begin
      out_valid <= arrives && completes;
      if (arrives) begins <= completes;
    end
  end
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [Product-1:0] product;
    logic [OUT_WIDTH-1:0] before_it, total;
    mult #(.A_WIDTH(IN_WIDTH), .A_SIGNED(IN_SIGNED), .B_WIDTH(WEIGHT_WIDTH), .B_SIGNED(1'b1), .DSP(DSP)) times (
        .clk, .ce(step), .a(x[i*IN_WIDTH+:IN_WIDTH]), .b(weights[i*WEIGHT_WIDTH+:WEIGHT_WIDTH]), .product
    );
    assign before_it = begins ? biases[i*OUT_WIDTH+:OUT_WIDTH] : total;
    assign out_data[i*OUT_WIDTH+:OUT_WIDTH] = total;
    always_ff @(posedge clk) if (step && arrives) total <= before_it + OUT_WIDTH'($signed(product));
  end
endmodule
