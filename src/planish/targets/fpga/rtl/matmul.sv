// The product of two streams of matrices: a (M x K) times b (K x N), or times the transpose of b (N x K).
//
// All of b is written to a memory first, in turn to one of its halves, so that the next matrix is taken in while this
// one is used; the rows of a pass by, each one as often as there are tiles of PE columns. SIMD * PE products are made in
// a cycle. A word of the memory holds all that one of them needs, in as many banks as a beat of b does not fill.
//
// Parameters   SIMD        products that are added at once; lanes of a, and of b if transposed
//              PE          columns at once; lanes of the result, and of b if not transposed
//              M, K, N     sizes; they need not divide
//              TRANSPOSED  1: b comes as N rows of K
//              A_WIDTH     bits of a number of a
//              A_SIGNED    1: two's complement, 0: unsigned
//              B_WIDTH     bits of a number of b
//              B_SIGNED    1: two's complement, 0: unsigned
//              OUT_WIDTH   bits of a result, enough for every matrix
//              DSP         1: multiply in DSP blocks
// Ports        a    SIMD * A_WIDTH, M rows of ceil(K / SIMD) beats
//              b    (PE or SIMD) * B_WIDTH, K rows of ceil(N / PE) or N rows of ceil(K / SIMD) beats
//              out  PE * OUT_WIDTH, M rows of ceil(N / PE) beats
// Latency      ceil(K / SIMD) + ceil(log2 SIMD) + 6 cycles after the last beat of b
// Interval     M * ceil(K / SIMD) * ceil(N / PE) cycles a matrix, or the beats of b if they are more
module matmul #(
    parameter int SIMD       = 2,
    parameter int PE         = 2,
    parameter int M          = 3,
    parameter int K          = 5,
    parameter int N          = 3,
    parameter bit TRANSPOSED = 1'b0,
    parameter int A_WIDTH    = 8,
    parameter bit A_SIGNED   = 1'b1,
    parameter int B_WIDTH    = 8,
    parameter bit B_SIGNED   = 1'b1,
    parameter int OUT_WIDTH  = 19,
    parameter bit DSP        = 1'b1,
    localparam int BLanes    = TRANSPOSED ? SIMD : PE
) (
    input  logic                      clk,
    input  logic                      rst,
    input  logic                      a_valid,
    output logic                      a_ready,
    input  logic [SIMD*A_WIDTH-1:0]   a_data,
    input  logic                      b_valid,
    output logic                      b_ready,
    input  logic [BLanes*B_WIDTH-1:0] b_data,
    output logic                      out_valid,
    input  logic                      out_ready,
    output logic [PE*OUT_WIDTH-1:0]   out_data
);
  localparam int Steps = (K + SIMD - 1) / SIMD;  // beats that make one result
  localparam int Tiles = (N + PE - 1) / PE;
  localparam int StepBits = Steps > 1 ? $clog2(Steps) : 1;
  localparam int TileBits = Tiles > 1 ? $clog2(Tiles) : 1;
  localparam int RowBits = M > 1 ? $clog2(M) : 1;
  localparam int AddressBits = Steps * Tiles > 1 ? $clog2(Steps * Tiles) : 1;

  // ---- b goes in: row after row, to one bank after the other ----
  localparam int Banks = TRANSPOSED ? PE : SIMD;
  localparam int Rows = TRANSPOSED ? N : K;
  localparam int Beats = TRANSPOSED ? Steps : Tiles;
  localparam int BankBits = Banks > 1 ? $clog2(Banks) : 1;
  localparam int InRowBits = Rows > 1 ? $clog2(Rows) : 1;
  localparam int BeatBits = Beats > 1 ? $clog2(Beats) : 1;

  logic [1:0] full;
  logic writes, reads;  // which half
  logic write, row_ends, all_written, all_read;
  logic [BankBits-1:0] bank;
  logic [InRowBits-1:0] in_row;
  logic [BeatBits-1:0] in_beat;
  logic [AddressBits-1:0] base, to;
  assign b_ready     = !full[writes];
  assign write       = b_valid && b_ready;
  assign row_ends    = in_beat == BeatBits'(Beats - 1);
  assign all_written = write && row_ends && in_row == InRowBits'(Rows - 1);

  always_ff @(posedge clk) begin
    if (rst || all_written) begin
      bank    <= '0;
      in_row  <= '0;
      in_beat <= '0;
      base    <= '0;
      to      <= '0;
    end else if (write) begin
      in_beat <= row_ends ? '0 : in_beat + 1'b1;
      to      <= to + 1'b1;
      if (row_ends) begin
        in_row <= in_row + 1'b1;
        bank   <= bank + 1'b1;
        to     <= base;
        if (bank == BankBits'(Banks - 1)) begin
          bank <= '0;
          base <= to + 1'b1;
          to   <= to + 1'b1;
        end
      end
    end
    if (rst) begin
      full   <= '0;
      writes <= 1'b0;
      reads  <= 1'b0;
    end else begin
      if (all_written) begin
        full[writes] <= 1'b1;
        writes       <= !writes;
      end
      if (all_read) begin
        full[reads] <= 1'b0;
        reads       <= !reads;
      end
    end
  end

  // ---- a passes by ----
  logic x_valid, go, step;
  logic [SIMD*A_WIDTH-1:0] x;
  replay #(.BITS(SIMD * A_WIDTH), .BEATS(Steps), .TIMES(Tiles)) rows (
      .clk, .rst, .in_valid(a_valid), .in_ready(a_ready), .in_data(a_data),
      .out_valid(x_valid), .out_ready(step && full[reads]), .out_data(x)
  );
  assign step = !out_valid || out_ready;
  assign go   = x_valid && full[reads];

  logic [StepBits-1:0] at_step;
  logic [TileBits-1:0] at_tile;
  logic [RowBits-1:0] at_row;
  logic [AddressBits-1:0] from;
  logic last_step, last_tile, last_row;
  assign last_step = at_step == StepBits'(Steps - 1);
  assign last_tile = at_tile == TileBits'(Tiles - 1);
  assign last_row  = at_row == RowBits'(M - 1);
  assign all_read  = step && go && last_step && last_tile && last_row;

  // Words lie tile after tile if rows of b are columns of the product, otherwise step after step.
  localparam int Stride = TRANSPOSED ? 1 : Tiles;
  always_ff @(posedge clk) begin
    if (rst) begin
      at_step <= '0;
      at_tile <= '0;
      at_row  <= '0;
      from    <= '0;
    end else if (step && go) begin
      at_step <= last_step ? '0 : at_step + 1'b1;
      from    <= from + AddressBits'(Stride);
      if (last_step) begin
        at_tile <= last_tile ? '0 : at_tile + 1'b1;
        from    <= last_tile ? '0 : TRANSPOSED ? from + 1'b1 : AddressBits'(at_tile) + 1'b1;
        if (last_tile) at_row <= last_row ? '0 : at_row + 1'b1;
      end
    end
  end

  // ---- a word of b and a beat of a, together ----
  logic [Banks*BLanes*B_WIDTH-1:0] word;
  for (genvar i = 0; i < Banks; i++) begin : g_bank
    ram #(.WIDTH(BLanes * B_WIDTH), .DEPTH(2 ** (AddressBits + 1))) halves (
        .clk, .write(write && bank == BankBits'(i)), .to({writes, to}), .data(b_data),
        .ce(step), .from({reads, from}), .word(word[i*BLanes*B_WIDTH+:BLanes*B_WIDTH])
    );
  end

  logic [SIMD*A_WIDTH-1:0] beat;  // without what stands beyond the row
  for (genvar s = 0; s < SIMD; s++) begin : g_lane
    localparam bit Missing = (Steps - 1) * SIMD + s >= K;
    logic [A_WIDTH-1:0] taken;
    always_ff @(posedge clk) begin
      if (step) begin
        taken                     <= last_step && Missing ? '0 : x[s*A_WIDTH+:A_WIDTH];
        beat[s*A_WIDTH+:A_WIDTH] <= taken;
      end
    end
  end

  // ---- products, their sums, and what is summed up so far ----
  localparam int Product = A_WIDTH + B_WIDTH;
  localparam int Sum = Product + $clog2(SIMD);
  logic valid, ends, tile_ends, begins, out_tile_ends;
  delay #(.BITS(3), .CYCLES(2 + 3 + $clog2(SIMD))) along (
      .clk, .rst, .ce(step), .in({go, last_step, last_tile}), .out({valid, ends, tile_ends})
  );
  always_ff @(posedge clk) begin
    if (rst) begin
      begins    <= 1'b1;
      out_valid <= 1'b0;
    end else if (step) begin
      out_valid <= valid && ends;
      if (valid) begins <= ends;
    end
    if (step) out_tile_ends <= tile_ends;
  end

  for (genvar p = 0; p < PE; p++) begin : g_column
    logic [SIMD*Product-1:0] products;
    for (genvar s = 0; s < SIMD; s++) begin : g_product
      localparam int Place = TRANSPOSED ? p * SIMD + s : s * PE + p;
      mult #(.A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .B_WIDTH(B_WIDTH), .B_SIGNED(B_SIGNED), .DSP(DSP)) times (
          .clk, .ce(step), .a(beat[s*A_WIDTH+:A_WIDTH]), .b(word[Place*B_WIDTH+:B_WIDTH]),
          .product(products[s*Product+:Product])
      );
    end
    logic [Sum-1:0] sum;
    tree #(.LANES(SIMD), .WIDTH(Product), .SIGNED(A_SIGNED || B_SIGNED)) total (
        .clk, .ce(step), .numbers(products), .result(sum)
    );
    logic [OUT_WIDTH-1:0] wide, result;
    logic unused;  // what is known to be a copy of the sign, or zero
    assign unused = ^sum;
    assign wide = A_SIGNED || B_SIGNED ? OUT_WIDTH'($signed(sum)) : OUT_WIDTH'(sum);
    always_ff @(posedge clk) if (step && valid) result <= begins ? wide : result + wide;

    localparam bit Missing = (Tiles - 1) * PE + p >= N;
    assign out_data[p*OUT_WIDTH+:OUT_WIDTH] = out_tile_ends && Missing ? '0 : result;
  end
endmodule
