// The sum or the maximum of each row.
//
// Parameters   LANES      numbers in a beat
//              WIDTH      bits of a number
//              SIGNED     1: two's complement, 0: unsigned
//              ROW        numbers in a row; the lanes that the last beat has beyond them are ignored
//              MAX        1: maximum, 0: sum
//              OUT_WIDTH  bits of the result, enough for every row
// Ports        in   LANES * WIDTH, ceil(ROW / LANES) beats a row
//              out  OUT_WIDTH, 1 beat a row
// Latency      ceil(ROW / LANES) + ceil(log2 LANES) cycles
// Interval     ceil(ROW / LANES) cycles a row
module reduce #(
    parameter int LANES     = 2,
    parameter int WIDTH     = 8,
    parameter bit SIGNED    = 1'b1,
    parameter int ROW       = 5,
    parameter bit MAX       = 1'b0,
    parameter int OUT_WIDTH = 11
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   in_valid,
    output logic                   in_ready,
    input  logic [LANES*WIDTH-1:0] in_data,
    output logic                   out_valid,
    input  logic                   out_ready,
    output logic [OUT_WIDTH-1:0]   out_data
);
  localparam int Beats = (ROW + LANES - 1) / LANES;
  localparam int BeatBits = Beats > 1 ? $clog2(Beats) : 1;
  localparam int Levels = $clog2(LANES);
  localparam int Result = MAX ? WIDTH : WIDTH + Levels;
  // What a missing lane counts as: nothing in a sum, the smallest number in a maximum.
  localparam logic [WIDTH-1:0] Nothing = MAX && SIGNED ? {1'b1, {(WIDTH - 1) {1'b0}}} : '0;

  logic step;
  assign step     = !out_valid || out_ready;
  assign in_ready = step;

  logic [BeatBits-1:0] beat;
  logic                last;
  assign last = beat == BeatBits'(Beats - 1);
  always_ff @(posedge clk) begin
    if (rst) beat <= '0;
    else if (step && in_valid) beat <= last ? '0 : beat + 1'b1;
  end

  logic [LANES*WIDTH-1:0] numbers;
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    localparam bit Missing = (Beats - 1) * LANES + i >= ROW;
    assign numbers[i*WIDTH+:WIDTH] = last && Missing ? Nothing : in_data[i*WIDTH+:WIDTH];
  end

  logic [Result-1:0] part;
  tree #(.LANES(LANES), .WIDTH(WIDTH), .SIGNED(SIGNED), .MAX(MAX)) beats_result (
      .clk, .ce(step), .numbers, .result(part)
  );

  // Bit 0 enters with the beat, the highest bit stands beside `part`.
  logic [Levels:0] valid, ends;
  if (Levels == 0) begin : g_now
    assign valid = in_valid;
    assign ends  = last;
  end else begin : g_later
    logic [Levels-1:0] valid_before, ends_before;
    always_ff @(posedge clk) begin
      if (rst) valid_before <= '0;
      else if (step) valid_before <= valid[Levels-1:0];
      if (step) ends_before <= ends[Levels-1:0];
    end
    assign valid = {valid_before, in_valid};
    assign ends  = {ends_before, last};
  end

  // The running result is the output register: a row may begin in it in the cycle in which the one before leaves.
  logic begins;
  logic [OUT_WIDTH-1:0] wide, joined;
  logic unused;  // what is known to be a copy of the sign, or zero
  assign unused = ^part;
  assign wide = SIGNED ? OUT_WIDTH'($signed(part)) : OUT_WIDTH'(part);
  if (MAX) begin : g_max
    logic [OUT_WIDTH:0] less;  // the sign of the difference, which leaves a chain of carries sooner than the carry
    assign less   = {SIGNED & wide[OUT_WIDTH-1], wide} - {SIGNED & out_data[OUT_WIDTH-1], out_data};
    assign joined = less[OUT_WIDTH] ? out_data : wide;
  end else begin : g_sum
    assign joined = out_data + wide;
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      begins    <= 1'b1;
      out_valid <= 1'b0;
    end else if (step) begin
      out_valid <= valid[Levels] && ends[Levels];
      if (valid[Levels]) begins <= ends[Levels];
    end
    if (step && valid[Levels]) out_data <= begins ? wide : joined;
  end
endmodule
