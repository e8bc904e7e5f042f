// clamp(round(x * 2**-(SHIFT + more))): a right shift by a number that varies, rounded and saturated.
//
// Two bits below the point are all that rounding needs: the half, and whether anything lies below it.
//
// Parameters   WIDTH      bits of x, two's complement
//              SHIFT      bits that always go; negative ones come
//              MORE_BITS  bits of `more`
//              ROUNDING   0: to nearest, halves to even; 1: to nearest, halves up; 2: floor
//              OUT_WIDTH  bits of the result
//              LOW, HIGH  smallest and largest result
// Ports        ce    the registers move
//              x     WIDTH
//              more  MORE_BITS, unsigned
//              y     OUT_WIDTH
// Latency      4 cycles
// Interval     1 cycle
module shift_round #(
    parameter int WIDTH     = 24,
    parameter int SHIFT     = 3,
    parameter int MORE_BITS = 4,
    parameter int ROUNDING  = 0,
    parameter int OUT_WIDTH = 8,
    parameter int LOW       = -128,
    parameter int HIGH      = 127
) (
    input  logic                 clk,
    input  logic                 ce,
    input  logic [WIDTH-1:0]     x,
    input  logic [MORE_BITS-1:0] more,
    output logic [OUT_WIDTH-1:0] y
);
  localparam int Left = SHIFT < 0 ? -SHIFT : 0;
  localparam int Right = SHIFT > 0 ? SHIFT : 0;
  localparam int Whole = WIDTH + Left > OUT_WIDTH ? WIDTH + Left : OUT_WIDTH + 1;  // bits above the point
  localparam int First = MORE_BITS / 2;  // the stages of the shifter from here on come before its register

  // A right shift that keeps in its lowest bit whether anything fell out.
  function automatic logic signed [Whole+1:0] shifted(input logic signed [Whole+1:0] from, input int amount);
    shifted = from >>> amount;
    for (int i = 0; i < Whole + 2; i++) if (i < amount) shifted[0] |= from[i];
  endfunction

  logic signed [Whole+Right+1:0] all;
  logic signed [Whole+1:0] early, middle, late, moved;
  logic [MORE_BITS-1:0] rest;
  assign all = (Whole + Right + 2)'($signed({x, {(Left + 2) {1'b0}}}));
  always_comb begin
    early = all[Right+:Whole+2];
    for (int i = 0; i < Right; i++) early[0] |= all[i];
    for (int i = MORE_BITS - 1; i >= First; i--) if (more[i]) early = shifted(early, 1 << i);
    late = middle;
    for (int i = First - 1; i >= 0; i--) if (rest[i]) late = shifted(late, 1 << i);
  end

  logic signed [Whole:0] rounded;
  logic up;
  assign up = moved[1] && (ROUNDING == 1 || (ROUNDING == 0 && (moved[0] || moved[2])));

  always_ff @(posedge clk) begin
    if (ce) begin
      middle  <= early;
      rest    <= more;
      moved   <= late;
      rounded <= {moved[Whole+1], moved[Whole+1:2]} + (Whole + 1)'(up);
      if (rounded > (Whole + 1)'(HIGH)) y <= OUT_WIDTH'(HIGH);
      else if (rounded < (Whole + 1)'(LOW)) y <= OUT_WIDTH'(LOW);
      else y <= rounded[OUT_WIDTH-1:0];
    end
  end
endmodule
