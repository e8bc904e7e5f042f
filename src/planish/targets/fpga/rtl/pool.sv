// Sum or maximum over windows, LANES channels at once, a place of the window a cycle.
//
// Parameters   as of window (GROUPS: beats of a row of channels; BEATS is 1), and
//              LANES            channels in a beat
//              WIDTH, SIGNED    of a number
//              MAX              1: maximum, padding is the smallest number; 0: sum, padding is zero
//              OUT_WIDTH        bits of a result
// Ports        in   LANES * WIDTH
//              out  LANES * OUT_WIDTH
// Latency      the slices of the first row of windows, the places of the window, and 2 cycles
// Interval     1 cycle for each place of the window and beat of the output
module pool #(
    parameter int SIZE_0    = 4,
    parameter int SIZE_1    = 4,
    parameter int SIZE_2    = 1,
    parameter int KERNEL_0  = 2,
    parameter int KERNEL_1  = 2,
    parameter int KERNEL_2  = 1,
    parameter int STRIDE_0  = 2,
    parameter int STRIDE_1  = 2,
    parameter int STRIDE_2  = 1,
    parameter int BEFORE_0  = 0,
    parameter int BEFORE_1  = 0,
    parameter int BEFORE_2  = 0,
    parameter int COUNT_0   = 2,
    parameter int COUNT_1   = 2,
    parameter int COUNT_2   = 1,
    parameter int LINES     = 4,
    parameter int GROUPS    = 3,
    parameter int LANES     = 2,
    parameter int WIDTH     = 6,
    parameter bit SIGNED    = 1'b1,
    parameter bit MAX       = 1'b1,
    parameter int OUT_WIDTH = 6
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [    LANES*WIDTH-1:0] in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  localparam int Taps = KERNEL_0 * KERNEL_1 * KERNEL_2;
  localparam int TapBits = Taps > 1 ? $clog2(Taps) : 1;
  localparam logic [WIDTH-1:0] Fill = WIDTH'(MAX && SIGNED) << (WIDTH - 1);

  logic valid, step;
  logic [LANES*WIDTH-1:0] data;
  window #(
      .WIDTH(LANES * WIDTH), .SIZE_0(SIZE_0), .SIZE_1(SIZE_1), .SIZE_2(SIZE_2),
      .KERNEL_0(KERNEL_0), .KERNEL_1(KERNEL_1), .KERNEL_2(KERNEL_2),
      .STRIDE_0(STRIDE_0), .STRIDE_1(STRIDE_1), .STRIDE_2(STRIDE_2),
      .BEFORE_0(BEFORE_0), .BEFORE_1(BEFORE_1), .BEFORE_2(BEFORE_2),
      .COUNT_0(COUNT_0), .COUNT_1(COUNT_1), .COUNT_2(COUNT_2),
      .GROUPS(GROUPS), .BEATS(1), .LINES(LINES), .FILL({LANES{Fill}})
  ) windows (
      .clk, .rst, .in_valid, .in_ready, .in_data, .out_valid(valid), .out_ready(step), .out_data(data)
  );

  // The running result is the output register: a window may begin in it in the cycle in which the one before leaves.
  logic [TapBits-1:0] tap;
  logic begins, last;
  assign begins = tap == '0;
  assign last   = tap == TapBits'(Taps - 1);
  assign step   = !out_valid || out_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      tap       <= '0;
      out_valid <= 1'b0;
    end else if (step) begin
      out_valid <= valid && last;
      if (valid) tap <= last ? '0 : tap + 1'b1;
    end
  end

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [OUT_WIDTH-1:0] total, number, joined;
    assign number = OUT_WIDTH'($signed({SIGNED & data[i*WIDTH+WIDTH-1], data[i*WIDTH+:WIDTH]}));
    assign out_data[i*OUT_WIDTH+:OUT_WIDTH] = total;
    if (MAX) begin : g_max
      logic above;
      assign above  = SIGNED ? $signed(number) > $signed(total) : number > total;
      assign joined = above ? number : total;
    end else begin : g_sum
      assign joined = total + number;
    end
    always_ff @(posedge clk) if (step && valid) total <= begins ? number : joined;
  end
endmodule
