// clamp(round(x * multiplier * 2**-SHIFT), LOW, HIGH), the multiplier being one number or one for each channel.
//
// Parameters   LANES             numbers in a beat
//              WIDTH, SIGNED     of x
//              BEATS             of a row; multipliers of channels repeat after it
//              FACTOR_WIDTH      bits of the multiplier, unsigned; 0: there is none to multiply with
//              CHANNELS          1: multipliers are read from FACTORS, 0: it is FACTOR
//              FACTOR            the only multiplier
//              FACTORS           file of BEATS words of LANES multipliers, lane 0 lowest
//              SHIFT             bits that go; negative ones come
//              EVEN              1: to nearest, halves to even
//              UP                1: to nearest, halves up; neither: floor
//              OUT_WIDTH         bits of a result
//              LOW, HIGH         smallest and largest result; LOW is negative where it is signed
//              DSP               1: multiply in DSP blocks
// Ports        in   LANES * WIDTH
//              out  LANES * OUT_WIDTH
// Latency      3 cycles, 3 more with a multiplier, 2 more with one for each channel
// Interval     1 cycle a beat
module requantize #(
    parameter int LANES        = 1,
    parameter int WIDTH        = 18,
    parameter bit SIGNED       = 1'b1,
    parameter int BEATS        = 1,
    parameter int FACTOR_WIDTH = 0,
    parameter bit CHANNELS     = 1'b0,
    parameter int FACTOR       = 1,
    parameter FACTORS = "",
    parameter int SHIFT        = 6,
    parameter bit EVEN         = 1'b1,
    parameter bit UP           = 1'b0,
    parameter int OUT_WIDTH    = 6,
    parameter int LOW          = 0,
    parameter int HIGH         = 63,
    parameter bit DSP          = 1'b1
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
  localparam int Product = WIDTH + FACTOR_WIDTH;
  localparam int Latency = FACTOR_WIDTH == 0 ? 2 : CHANNELS ? 7 : 5;

  // The pipeline moves if what is at its end can go to the register behind it.
  logic step, ready;
  logic [LANES*OUT_WIDTH-1:0] results;
  logic [Latency:1] valid;
  assign step     = !valid[Latency] || ready;
  assign in_ready = step;

  always_ff @(posedge clk) begin
    if (rst) valid <= '0;
    else if (step) valid <= {valid[Latency-1:1], in_valid};
  end
  skid #(.WIDTH(LANES * OUT_WIDTH)) last (
      .clk, .rst, .in_valid(valid[Latency]), .in_ready(ready), .in_data(results), .out_valid, .out_ready, .out_data
  );

  logic [LANES*Product-1:0] products;
  if (FACTOR_WIDTH == 0) begin : g_as_it_is
    assign products = in_data;
  end else begin : g_times
    localparam int Bits = BEATS > 1 ? $clog2(BEATS) : 1;
    logic [LANES*WIDTH-1:0] numbers;
    logic [LANES*FACTOR_WIDTH-1:0] factors;
    if (CHANNELS) begin : g_channels
      logic [LANES*WIDTH-1:0] found;
      logic [Bits-1:0] beat;
      always_ff @(posedge clk) begin
        if (rst) beat <= '0;
        else if (step && in_valid) beat <= beat == Bits'(BEATS - 1) ? '0 : beat + 1'b1;
        if (step) begin
          found   <= in_data;
          numbers <= found;
        end
      end
      rom #(.WIDTH(LANES * FACTOR_WIDTH), .DEPTH(BEATS), .WORDS(FACTORS)) channel_factors (
          .clk, .ce(step), .address(beat), .word(factors)
      );
    end else begin : g_one
      assign numbers = in_data;
      assign factors = {LANES{FACTOR_WIDTH'(FACTOR)}};
    end
    for (genvar i = 0; i < LANES; i++) begin : g_lane
      mult #(.A_WIDTH(WIDTH), .A_SIGNED(SIGNED), .B_WIDTH(FACTOR_WIDTH), .B_SIGNED(1'b0), .DSP(DSP)) times (
          .clk, .ce(step), .a(numbers[i*WIDTH+:WIDTH]), .b(factors[i*FACTOR_WIDTH+:FACTOR_WIDTH]),
          .product(products[i*Product+:Product])
      );
    end
  end

  for (genvar i = 0; i < LANES; i++) begin : g_round
    round_clamp #(
        .WIDTH(Product), .SIGNED(SIGNED), .SHIFT(SHIFT), .EVEN(EVEN), .UP(UP),
        .OUT_WIDTH(OUT_WIDTH), .LOW(LOW), .HIGH(HIGH)
    ) lane (.clk, .ce(step), .x(products[i*Product+:Product]), .y(results[i*OUT_WIDTH+:OUT_WIDTH]));
  end
endmodule
