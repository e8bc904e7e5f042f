// Runs of a row that share an exponent: clamp(round(x * 2**-s), LOW, HIGH) * 2**s, where s is as many bits as the largest
// magnitude of the run has above bit TOP.
//
// The numbers wait in a queue until the last one of their run has come. All that is asked of the magnitudes is where the
// highest bit of any of them is, so they are joined by OR rather than compared.
//
// Parameters   LANES      numbers in a beat, all of one run
//              WIDTH      bits of a number, more than TOP + 1
//              SIGNED     1: two's complement, 0: unsigned
//              ROW        numbers in a row; the lanes that the last beat has beyond them are ignored
//              RUN        beats of a run; the last one of a row may have fewer
//              TOP        place of the highest bit of HIGH
//              ROUNDING   0: to nearest, halves to even; 1: to nearest, halves up; 2: floor
//              ELEMENT    bits of an element
//              LOW, HIGH  smallest and largest element
//              OUT_WIDTH  bits of the result
// Ports        in   LANES * WIDTH, ceil(ROW / LANES) beats a row
//              out  LANES * OUT_WIDTH, ceil(ROW / LANES) beats a row
// Latency      RUN + 9 cycles, one more where RUN is over 57
// Interval     ceil(ROW / LANES) cycles a row
module microscale #(
    parameter int LANES     = 2,
    parameter int WIDTH     = 12,
    parameter bit SIGNED    = 1'b1,
    parameter int ROW       = 10,
    parameter int RUN       = 2,
    parameter int TOP       = 6,
    parameter int ROUNDING  = 0,
    parameter int ELEMENT   = 8,
    parameter int LOW       = -128,
    parameter int HIGH      = 127,
    parameter int OUT_WIDTH = 12
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [LANES*WIDTH-1:0]     in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  localparam int Beats = (ROW + LANES - 1) / LANES;
  localparam int Run = RUN < Beats ? RUN : Beats;
  localparam int RunBits = Run > 1 ? $clog2(Run) : 1;
  localparam int BeatBits = Beats > 1 ? $clog2(Beats) : 1;
  localparam int Most = WIDTH - 1 - TOP;  // bits that may go
  localparam int MoreBits = $clog2(Most + 1);
  localparam int Depth = RUN + 7;  // a run, and what comes until its shift is known

  logic [RunBits-1:0] place;
  logic [BeatBits-1:0] beat;
  logic enters, row_ends, run_ends;
  assign enters   = in_valid && in_ready;
  assign row_ends = Run == Beats ? place == RunBits'(Run - 1) : beat == BeatBits'(Beats - 1);
  assign run_ends = row_ends || place == RunBits'(Run - 1);
  always_ff @(posedge clk) begin
    if (rst) begin
      place <= '0;
      beat  <= '0;
    end else if (enters) begin
      place <= run_ends ? '0 : place + 1'b1;
      beat  <= row_ends ? '0 : beat + 1'b1;
    end
  end

  // The bits of each magnitude above TOP, those of the run so far, and the place of their highest one.
  logic [LANES*Most-1:0] above;
  logic [Most-1:0] beats_bits, run_bits;
  logic [MoreBits-1:0] highest, shift;
  logic came, came_last, begins, done, known;
  for (genvar i = 0; i < LANES; i++) begin : g_magnitude
    localparam bit Missing = (Beats - 1) * LANES + i >= ROW;
    logic [WIDTH-1:0] number, magnitude;
    logic unused;
    assign number    = row_ends && Missing ? '0 : in_data[i*WIDTH+:WIDTH];
    assign magnitude = SIGNED && number[WIDTH-1] ? -number : number;
    assign unused    = ^magnitude;
    always_ff @(posedge clk) above[i*Most+:Most] <= magnitude[WIDTH-1:TOP+1];
  end
  always_comb begin
    beats_bits = '0;
    for (int i = 0; i < LANES; i++) beats_bits |= above[i*Most+:Most];
    highest = '0;
    for (int i = 0; i < Most; i++) if (run_bits[i]) highest = MoreBits'(i + 1);
  end
  always_ff @(posedge clk) begin
    if (rst) begin
      came   <= 1'b0;
      done   <= 1'b0;
      known  <= 1'b0;
      begins <= 1'b1;
    end else begin
      came  <= enters;
      done  <= came && came_last;
      known <= done;
      if (came) begins <= came_last;
    end
    came_last <= run_ends;
    if (came) run_bits <= begins ? beats_bits : run_bits | beats_bits;
    shift <= highest;
  end

  // Every shift that is known is that of a run whose last beat waits: its queue, as deep, has room.
  logic waits, scaled, step, last, unused_ready;
  logic [LANES*WIDTH-1:0] numbers;
  logic [MoreBits-1:0] more, more_then;
  fifo #(.WIDTH(LANES * WIDTH + 1), .DEPTH(Depth)) run_waits (
      .clk, .rst, .in_valid, .in_ready, .in_data({run_ends, in_data}),
      .out_valid(waits), .out_ready(step && scaled), .out_data({last, numbers})
  );
  fifo #(.WIDTH(MoreBits), .DEPTH(Depth)) shifts (
      .clk, .rst, .in_valid(known), .in_ready(unused_ready), .in_data(shift),
      .out_valid(scaled), .out_ready(step && waits && last), .out_data(more)
  );

  assign step = !out_valid || out_ready;
  delay #(.BITS(1), .CYCLES(5)) valid (.clk, .rst, .ce(step), .in(waits && scaled), .out(out_valid));
  delay #(.BITS(MoreBits), .CYCLES(4)) with_element (.clk, .rst, .ce(step), .in(more), .out(more_then));

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [WIDTH-1:0] number;
    logic [ELEMENT-1:0] element;
    logic [OUT_WIDTH-1:0] wide;
    assign number = numbers[i*WIDTH+:WIDTH];
    shift_round #(
        .WIDTH(WIDTH + 1), .SHIFT(0), .MORE_BITS(MoreBits), .ROUNDING(ROUNDING),
        .OUT_WIDTH(ELEMENT), .LOW(LOW), .HIGH(HIGH)
    ) scale (
        .clk, .ce(step), .x({SIGNED && number[WIDTH-1], number}), .more, .y(element)
    );
    assign wide = LOW < 0 ? OUT_WIDTH'($signed(element)) : OUT_WIDTH'(element);
    always_ff @(posedge clk) if (step) out_data[i*OUT_WIDTH+:OUT_WIDTH] <= wide << more_then;
  end
endmodule
