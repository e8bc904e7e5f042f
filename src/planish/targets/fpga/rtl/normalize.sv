// x / v or x / sqrt(v) for each x of a row and the row's number v: a table over the bits below the leading one of v,
// a multiplication, and a shift that is rounded and saturated. v = 0 counts as 1.
//
// Parameters   LANES       numbers of x in a beat
//              A_WIDTH     bits of x
//              A_SIGNED    1: two's complement, 0: unsigned
//              B_WIDTH     bits of v, unsigned
//              BEATS       beats in a row of x
//              ROOT        1: divide by the root
//              INDEX       bits below the leading one that are looked at
//              TABLE       file of 2**INDEX factors, twice as many for the root
//              TABLE_BITS  bits of a factor, unsigned
//              SHIFT       bits that go whatever v is; negative ones come
//              ROUNDING    0: to nearest, halves to even; 1: to nearest, halves up; 2: floor
//              OUT_WIDTH   bits of the result
//              LOW, HIGH   smallest and largest result
//              DSP         1: multiply in DSP blocks
// Ports        a    LANES * A_WIDTH, BEATS beats a row
//              b    B_WIDTH, 1 beat a row
//              out  LANES * OUT_WIDTH, BEATS beats a row
// Latency      7 cycles after x; ceil(log2 B_WIDTH) + 10 after v
// Interval     BEATS cycles a row
module normalize #(
    parameter int LANES      = 2,
    parameter int A_WIDTH    = 8,
    parameter bit A_SIGNED   = 1'b1,
    parameter int B_WIDTH    = 12,
    parameter int BEATS      = 4,
    parameter bit ROOT       = 1'b0,
    parameter int INDEX      = 5,
    parameter     TABLE      = "",
    parameter int TABLE_BITS = 8,
    parameter int SHIFT      = 0,
    parameter int ROUNDING   = 0,
    parameter int OUT_WIDTH  = 8,
    parameter int LOW        = -128,
    parameter int HIGH       = 127,
    parameter bit DSP        = 1'b1
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       a_valid,
    output logic                       a_ready,
    input  logic [LANES*A_WIDTH-1:0]   a_data,
    input  logic                       b_valid,
    output logic                       b_ready,
    input  logic [B_WIDTH-1:0]         b_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
  localparam int Stages = B_WIDTH > 1 ? $clog2(B_WIDTH) : 1;
  localparam int Wide = INDEX + 1 > B_WIDTH ? INDEX + 1 : B_WIDTH;
  localparam int AddressBits = ROOT ? INDEX + 1 : INDEX > 0 ? INDEX : 1;
  localparam int MoreBits = ROOT && Stages > 1 ? Stages - 1 : Stages;

  // The row's number, moved left until its leading one is at the top: a stage for each bit of how far.
  logic row_valid, row_ready, row_step;
  assign row_step = !row_valid || row_ready;
  assign b_ready  = row_step;
  delay #(.BITS(1), .CYCLES(Stages + 2)) row_moves (.clk, .rst, .ce(row_step), .in(b_valid), .out(row_valid));

  for (genvar s = 0; s <= Stages; s++) begin : g_stage
    logic [Wide-1:0] number;
    logic [Stages-1:0] moved;
    if (s == 0) begin : g_enter
      assign number = Wide'(b_data) << (Wide - B_WIDTH);
      assign moved  = '0;
    end else begin : g_move
      localparam int By = 1 << (Stages - s);
      logic none;
      assign none = g_stage[s-1].number[Wide-1-:By] == '0;
      always_ff @(posedge clk) begin
        if (row_step) begin
          number <= none ? g_stage[s-1].number << By : g_stage[s-1].number;
          moved  <= none ? g_stage[s-1].moved | Stages'(By) : g_stage[s-1].moved;
        end
      end
    end
  end

  // Without a leading one v was 0, and all bits below it are 0 as they are for 1.
  logic [INDEX:0] leading, place;
  logic [Stages-1:0] power;
  assign leading = g_stage[Stages].number[Wide-1-:INDEX+1];
  assign power   = leading[INDEX] ? Stages'(B_WIDTH - 1) - g_stage[Stages].moved : '0;
  always_comb begin
    place = leading;
    place[INDEX] = ROOT && power[0];
  end

  logic unused;
  assign unused = ^{g_stage[Stages].number, place};

  localparam int Entries = 2 ** (INDEX + 32'(ROOT));
  logic [TABLE_BITS-1:0] row_factor;
  logic [MoreBits-1:0] row_more;
  rom #(.WIDTH(TABLE_BITS), .DEPTH(Entries), .BLOCK(Entries * TABLE_BITS > 2048), .WORDS(TABLE)) factors (
      .clk, .ce(row_step), .address(AddressBits'(place)), .word(row_factor)
  );
  delay #(.BITS(MoreBits), .CYCLES(2)) with_factor (
      .clk, .rst, .ce(row_step), .in(MoreBits'(ROOT ? power >> 1 : power)), .out(row_more)
  );

  logic factor_valid, step;
  logic [TABLE_BITS-1:0] factor;
  logic [MoreBits-1:0] more, more_then;
  replay #(.BITS(TABLE_BITS + MoreBits), .BEATS(1), .TIMES(BEATS)) whole_row (
      .clk, .rst,
      .in_valid(row_valid), .in_ready(row_ready), .in_data({row_more, row_factor}),
      .out_valid(factor_valid), .out_ready(step && a_valid), .out_data({more, factor})
  );

  assign step    = !out_valid || out_ready;
  assign a_ready = step && factor_valid;
  delay #(.BITS(1), .CYCLES(7)) valid (.clk, .rst, .ce(step), .in(a_valid && factor_valid), .out(out_valid));
  delay #(.BITS(MoreBits), .CYCLES(3)) with_product (.clk, .rst, .ce(step), .in(more), .out(more_then));

  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [A_WIDTH+TABLE_BITS-1:0] product;
    mult #(.A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .B_WIDTH(TABLE_BITS), .B_SIGNED(1'b0), .DSP(DSP)) times (
        .clk, .ce(step), .a(a_data[i*A_WIDTH+:A_WIDTH]), .b(factor), .product
    );
    shift_round #(
        .WIDTH(A_WIDTH + TABLE_BITS + 1), .SHIFT(SHIFT), .MORE_BITS(MoreBits), .ROUNDING(ROUNDING),
        .OUT_WIDTH(OUT_WIDTH), .LOW(LOW), .HIGH(HIGH)
    ) scale (
        .clk, .ce(step), .x({A_SIGNED && product[A_WIDTH+TABLE_BITS-1], product}), .more(more_then),
        .y(out_data[i*OUT_WIDTH+:OUT_WIDTH])
    );
  end
endmodule
