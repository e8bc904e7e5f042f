// A product of two numbers, in a DSP block or in LUTs.
//
// Up to 18 x 18 bits are one DSP block with its own registers; wider products are a sum of such. In LUTs the narrower
// number chooses shifted copies of the other one, which are added in pairs with a register after each level.
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
    // Parts of 18 bits are multiplied on their own, two cycles, and added in the third. The upper part has the sign; if
    // it is one bit of a, it needs no block to choose b or nothing.
    localparam int PartsA = (A_WIDTH + 17) / 18;
    localparam int PartsB = (B_WIDTH + 17) / 18;
    logic [Width-1:0] parts[PartsA*PartsB];
    for (genvar i = 0; i < PartsA; i++) begin : g_a
      localparam int BitsA = i + 1 < PartsA ? 18 : A_WIDTH - 18 * i;
      localparam bit SignA = A_SIGNED && i + 1 == PartsA;
      logic [BitsA-1:0] part_a;
      assign part_a = a[18*i+:BitsA];
      for (genvar j = 0; j < PartsB; j++) begin : g_b
        localparam int BitsB = j + 1 < PartsB ? 18 : B_WIDTH - 18 * j;
        localparam bit SignB = B_SIGNED && j + 1 == PartsB;
        logic [17:0] wide_b;
        assign wide_b = SignB ? 18'($signed(b[18*j+:BitsB])) : 18'(b[18*j+:BitsB]);
        if (BitsA == 1) begin : g_bit
          logic signed [18:0] taken, chosen;
          always_ff @(posedge clk) begin
            if (ce) begin
              if (!part_a) taken <= '0;
              else if (SignA) taken <= -$signed({SignB & wide_b[17], wide_b});
              else taken <= {SignB & wide_b[17], wide_b};
              chosen <= taken;
            end
          end
          assign parts[i*PartsB+j] = Width'(chosen) << 18 * (i + j);
        end else begin : g_block
          logic [17:0] wide_a;
          logic [35:0] multiplied;
          assign wide_a = SignA ? 18'($signed(part_a)) : 18'(part_a);
          mult18 #(.A_SIGNED(SignA), .B_SIGNED(SignB), .PIPELINE(1'b0)) leaf (
              .clk, .ce, .a(wide_a), .b(wide_b), .product(multiplied)
          );
          assign parts[i*PartsB+j] = Width'(SignA || SignB ? 64'($signed(multiplied)) : 64'(multiplied)) << 18 * (i + j);
        end
      end
    end
    logic [Width-1:0] sum;
    always_comb begin
      sum = '0;
      for (int i = 0; i < PartsA * PartsB; i++) sum += parts[i];
    end
    always_ff @(posedge clk) if (ce) product <= sum;
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
