// A product of two numbers, in a DSP block or in LUTs.
//
// Up to 18 x 18 bits are one DSP block with its own registers; wider products are left to the synthesis tool. In LUTs
// the narrower number chooses shifted copies of the other one, which are added in pairs with a register after each level.
//
// Parameters   A_WIDTH, B_WIDTH    bits
//              A_SIGNED, B_SIGNED  1: two's complement, 0: unsigned
//              DSP                 1: DSP block, 0: LUTs
// Ports        ce       the registers move
//              a        A_WIDTH
//              b        B_WIDTH
//              product  A_WIDTH + B_WIDTH, signed if one of them is
// Latency      3 cycles
// Interval     1 cycle
module mult #(
    parameter int A_WIDTH  = 8,
    parameter bit A_SIGNED = 1'b1,
    parameter int B_WIDTH  = 8,
    parameter bit B_SIGNED = 1'b1,
    parameter bit DSP      = 1'b1,
    localparam int Width = A_WIDTH + B_WIDTH
) (
    input  logic               clk,
    input  logic               ce,
    input  logic [A_WIDTH-1:0] a,
    input  logic [B_WIDTH-1:0] b,
    output logic [  Width-1:0] product
);
  if (DSP && A_WIDTH <= 18 && B_WIDTH <= 18) begin : g_leaf
    logic [17:0] wide_a, wide_b;
    logic [35:0] wide;
    assign wide_a  = A_SIGNED ? 18'($signed(a)) : 18'(a);
    assign wide_b  = B_SIGNED ? 18'($signed(b)) : 18'(b);
    assign product = wide[Width-1:0];
    mult18 #(.A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED)) leaf (.clk, .ce, .a(wide_a), .b(wide_b), .product(wide));
    if (Width < 36) begin : g_unused
      logic unused;
      assign unused = &wide[35:Width];
    end
  end else if (DSP) begin : g_wide
    logic signed [A_WIDTH:0] a_taken;
    logic signed [B_WIDTH:0] b_taken;
    logic [Width-1:0] multiplied;
    always_ff @(posedge clk) begin
      if (ce) begin
        a_taken    <= {A_SIGNED & a[A_WIDTH-1], a};
        b_taken    <= {B_SIGNED & b[B_WIDTH-1], b};
        multiplied <= Width'(a_taken * b_taken);
        product    <= multiplied;
      end
    end
  end else begin : g_rows
    // The narrower number's bits choose; its sign bit takes away.
    localparam bit Swap = A_WIDTH < B_WIDTH;
    localparam int Rows = Swap ? A_WIDTH : B_WIDTH;
    localparam int Bits = Swap ? B_WIDTH : A_WIDTH;
    localparam bit RowsSigned = Swap ? A_SIGNED : B_SIGNED;
    localparam bit BitsSigned = Swap ? B_SIGNED : A_SIGNED;
    localparam int Pairs = (Rows + 1) / 2;
    localparam int Fours = (Pairs + 1) / 2;
    logic [Rows-1:0] choose;
    logic [Bits-1:0] copy;
    if (Swap) begin : g_swap
      assign {choose, copy} = {a, b};
    end else begin : g_keep
      assign {choose, copy} = {b, a};
    end

    // Pair i stands 2i bits higher, four i 4i bits.
    logic [Bits+2:0] pairs[Pairs];
    logic [Bits+4:0] fours[Fours];
    for (genvar i = 0; i < Pairs; i++) begin : g_pair
      logic signed [Bits+2:0] low, high;
      assign low = choose[2*i] ? {{3{BitsSigned & copy[Bits-1]}}, copy} : '0;
      if (2 * i + 1 < Rows) begin : g_two
        assign high = choose[2*i+1] ? {{2{BitsSigned & copy[Bits-1]}}, copy, 1'b0} : '0;
      end else begin : g_one
        assign high = '0;
      end
      always_ff @(posedge clk) begin
        if (ce) begin
          if (RowsSigned && 2 * i + 1 == Rows - 1) pairs[i] <= low - high;
          else if (RowsSigned && 2 * i == Rows - 1) pairs[i] <= -low;
          else pairs[i] <= low + high;
        end
      end
    end
    for (genvar i = 0; i < Fours; i++) begin : g_four
      logic [Bits+4:0] low;
      assign low = {{2{pairs[2*i][Bits+2]}}, pairs[2*i]};
      if (2 * i + 1 < Pairs) begin : g_two
        always_ff @(posedge clk) if (ce) fours[i] <= low + {pairs[2*i+1], 2'b00};
      end else begin : g_one
        always_ff @(posedge clk) if (ce) fours[i] <= low;
      end
    end
    logic [Width-1:0] sum;
    always_comb begin
      sum = '0;
      for (int i = 0; i < Fours; i++) sum += Width'($signed(fours[i])) << 4 * i;
    end
    always_ff @(posedge clk) if (ce) product <= sum;
  end
endmodule
