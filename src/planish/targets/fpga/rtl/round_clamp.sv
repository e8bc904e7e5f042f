// clamp(round(x * 2**-SHIFT), LOW, HIGH).
//
// Half of a unit is added as the carry of the part that stays. A number exactly between two is rounded up by it, to an
// odd one where it should have gone down: then its last bit is cleared.
//
// Parameters   WIDTH, SIGNED  of x
//              SHIFT          bits that go; negative ones come
//              EVEN           1: to nearest, halves to even
//              UP             1: to nearest, halves up; neither: floor
//              OUT_WIDTH      bits of the result
//              LOW, HIGH      smallest and largest result; LOW is negative where it is signed
// Ports        ce  the registers move
//              x   WIDTH
//              y   OUT_WIDTH
// Latency      2 cycles
// Interval     1 cycle
module round_clamp #(
    parameter int WIDTH     = 18,
    parameter bit SIGNED    = 1'b1,
    parameter int SHIFT     = 6,
    parameter bit EVEN      = 1'b1,
    parameter bit UP        = 1'b0,
    parameter int OUT_WIDTH = 6,
    parameter int LOW       = 0,
    parameter int HIGH      = 63
) (
    input  logic                 clk,
    input  logic                 ce,
    input  logic [    WIDTH-1:0] x,
    output logic [OUT_WIDTH-1:0] y
);
  localparam bit OutSigned = LOW < 0;
  localparam int Whole = SHIFT < WIDTH ? WIDTH + 1 - SHIFT : 1;  // bits that stay, with a sign
  // One more for what rounding adds, and at least one that the result lacks.
  localparam int Width = Whole + 1 > OUT_WIDTH + 1 ? Whole + 1 : OUT_WIDTH + 1;

  logic signed [Width-1:0] rounded, next;
  if (SHIFT <= 0) begin : g_left
    assign next = Width'($signed({SIGNED & x[WIDTH-1], x})) <<< -SHIFT;
  end else begin : g_right
    localparam int Full = SHIFT < WIDTH ? WIDTH + 1 : SHIFT + 1;
    logic signed [Full-1:0] wide;
    logic signed [Width-1:0] sum;
    logic tie;
    assign wide = Full'($signed({SIGNED & x[WIDTH-1], x}));
    assign sum  = Width'($signed(wide[Full-1:SHIFT])) + $signed({{(Width - 1) {1'b0}}, (EVEN | UP) & wide[SHIFT-1]});
    if (EVEN && SHIFT > 1) begin : g_tie
      assign tie = wide[SHIFT-1] && wide[SHIFT-2:0] == '0;
    end else begin : g_half
      assign tie = EVEN && wide[SHIFT-1];
    end
    assign next = {sum[Width-1:1], sum[0] & ~tie};
    if (!EVEN && SHIFT > 1) begin : g_unused
      logic unused;
      assign unused = &wide[SHIFT-1:0];
    end else if (!EVEN && !UP) begin : g_half_unused
      logic unused;
      assign unused = wide[0];
    end
  end

  // First what the bits of the result can hold, then the bounds where they are tighter.
  localparam int Least = OutSigned ? -(1 << (OUT_WIDTH - 1)) : 0;
  localparam int Most = OutSigned ? (1 << (OUT_WIDTH - 1)) - 1 : int'((64'd1 << OUT_WIDTH) - 64'd1);
  logic fits, negative, below, above;
  logic [OUT_WIDTH-1:0] low_bits;
  assign negative = rounded[Width-1];
  assign low_bits = rounded[OUT_WIDTH-1:0];
  if (OutSigned) begin : g_signed
    assign fits  = rounded[Width-1:OUT_WIDTH-1] == {(Width - OUT_WIDTH + 1) {negative}};
    assign below = LOW > Least && $signed(low_bits) < $signed(OUT_WIDTH'(LOW));
    assign above = HIGH < Most && $signed(low_bits) > $signed(OUT_WIDTH'(HIGH));
  end else begin : g_unsigned
    assign fits  = rounded[Width-1:OUT_WIDTH] == '0;
    assign below = LOW > Least && low_bits < OUT_WIDTH'(LOW);
    assign above = HIGH < Most && low_bits > OUT_WIDTH'(HIGH);
  end

  always_ff @(posedge clk) begin
    if (ce) begin
      rounded <= next;
      if (fits ? below : negative) y <= OUT_WIDTH'(LOW);
      else if (!fits || above) y <= OUT_WIDTH'(HIGH);
      else y <= low_bits;
    end
  end
endmodule
