// A matrix of fixed weights times vectors: SIMD columns and PE rows in a cycle.
//
// A vector comes in BEATS beats and stays in a buffer of two vectors while it meets PASSES times PE rows; the next one
// comes in meanwhile. Weights stand in a ROM in the order of their use. Products go through a tree of adders into the
// accumulators of the PE rows. The pipeline never stops: a result is begun only if there is room for it behind.
//
// Parameters   SIMD, PE              columns and rows at once
//              IN_WIDTH, IN_SIGNED   of the vector's numbers
//              BEATS                 of a vector: ceil(columns / SIMD)
//              PASSES                over a vector: ceil(rows / PE)
//              GROUPS                vectors, one after the other, that have weights of their own
//              STYLE                 0: products in LUTs; 1: in DSP blocks; 2: two rows share a DSP block;
//                                    3: no products, weights are -1, 0 and 1 (WEIGHT_WIDTH 2) or -1 and 1 (1: negative)
//              WEIGHT_WIDTH          bits of a weight, two's complement
//              HIGH_WIDTH, SPLIT     of style 2: the even row's weight is multiplied at bit 0, the odd row's at bit
//                                    SPLIT; its field, of HIGH_WIDTH bits, is smaller by one beside a negative weight
//              WEIGHT_BLOCK          1: weights in block RAM, 0: in LUTs
//              WEIGHTS               file of GROUPS * PASSES * BEATS words of PE * SIMD weights; column 0 of row 0 is
//                                    lowest (style 2: of pairs of rows, {odd, even})
//              BIAS, BIASES          1: there is a bias; file of GROUPS * PASSES words of PE biases
//              OUT_WIDTH             bits of a result; sums on the way may wrap
// Ports        in   SIMD * IN_WIDTH
//              out  PE * OUT_WIDTH
// Latency      from a vector's last beat: BEATS (0 where PASSES is 1) + 7 + ceil(log2 SIMD) cycles and a few
// Interval     PASSES * BEATS cycles a vector
module matvec #(
    parameter int SIMD         = 4,
    parameter int PE           = 3,
    parameter int IN_WIDTH     = 6,
    parameter bit IN_SIGNED    = 1'b0,
    parameter int BEATS        = 4,
    parameter int PASSES       = 4,
    parameter int GROUPS       = 1,
    parameter int STYLE        = 2,
    parameter int WEIGHT_WIDTH = 6,
    parameter int HIGH_WIDTH   = 6,
    parameter int SPLIT        = 12,
    parameter bit WEIGHT_BLOCK = 1'b0,
    parameter WEIGHTS = "",
    parameter bit BIAS         = 1'b1,
    parameter BIASES = "",
    parameter int OUT_WIDTH    = 18
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     in_valid,
    output logic                     in_ready,
    input  logic [SIMD*IN_WIDTH-1:0] in_data,
    output logic                     out_valid,
    input  logic                     out_ready,
    output logic [PE*OUT_WIDTH-1:0]  out_data
);
  localparam int BeatBits = BEATS > 1 ? $clog2(BEATS) : 1;
  localparam int PassBits = PASSES > 1 ? $clog2(PASSES) : 1;
  localparam int Rows = GROUPS * PASSES;
  localparam int RowBits = Rows > 1 ? $clog2(Rows) : 1;
  localparam int Depth = Rows * BEATS;
  localparam int DepthBits = Depth > 1 ? $clog2(Depth) : 1;
  localparam int Pairs = (PE + 1) / 2;
  localparam int WordWidth = STYLE == 2 ? Pairs * SIMD * (HIGH_WIDTH + WEIGHT_WIDTH) : PE * SIMD * WEIGHT_WIDTH;
  localparam int Summed = 2 + (STYLE == 3 ? 1 : 3) + $clog2(SIMD);  // cycles until the tree gives the beat's sum
  localparam int Direct = Summed + 1 + int'(BIAS);  // until a result is in its register
  localparam bit Queue = Direct + 1 > BEATS;
  localparam int Slots = Queue ? (Direct + 3 + BEATS - 1) / BEATS : 1;  // results begun and not yet taken
  localparam int SlotBits = $clog2(Slots + 1);

  // What is done in this cycle; what is asked of the next one is found out before it.
  logic have, step, last_beat, last_pass, room;
  logic [ BeatBits-1:0] beat, next_beat;
  logic [ PassBits-1:0] pass, next_pass;
  logic [DepthBits-1:0] address;
  logic [ SlotBits-1:0] slots, next_slots;
  assign step = have && (!last_beat || room);

  always_comb begin
    next_beat  = beat;
    next_pass  = pass;
    next_slots = slots - SlotBits'(step && last_beat) + SlotBits'(out_valid && out_ready);
    if (step) next_beat = last_beat ? '0 : beat + 1'b1;
    if (step && last_beat) next_pass = last_pass ? '0 : pass + 1'b1;
  end
  always_ff @(posedge clk) begin
    if (rst) begin
      beat      <= '0;
      pass      <= '0;
      address   <= '0;
      slots     <= SlotBits'(Slots);
      last_beat <= BEATS == 1;
      last_pass <= PASSES == 1;
      room      <= 1'b1;
    end else begin
      beat      <= next_beat;
      pass      <= next_pass;
      slots     <= next_slots;
      last_beat <= next_beat == BeatBits'(BEATS - 1);
      last_pass <= next_pass == PassBits'(PASSES - 1);
      room      <= next_slots != '0;
      if (step) address <= address == DepthBits'(Depth - 1) ? '0 : address + 1'b1;
    end
  end

  // The beat of the vector, two cycles later.
  logic [SIMD*IN_WIDTH-1:0] x_found, x;
  always_ff @(posedge clk) x <= x_found;
  if (PASSES == 1) begin : g_straight
    assign have     = in_valid;
    assign in_ready = !last_beat || room;
    always_ff @(posedge clk) x_found <= in_data;
  end else begin : g_buffer
    (* no_rw_check *)  // one half is read while the other one is written
    logic [SIMD*IN_WIDTH-1:0] buffer[2**(BeatBits+1)];
    logic write_half, read_half, put, filled, emptied;
    logic [BeatBits-1:0] write_beat;
    logic [1:0] full;
    assign have     = full != 2'd0;
    assign in_ready = !full[1];
    assign put      = in_valid && in_ready;
    assign filled   = put && write_beat == BeatBits'(BEATS - 1);
    assign emptied  = step && last_beat && last_pass;
    always_ff @(posedge clk) begin
      if (put) buffer[{write_half, write_beat}] <= in_data;
      x_found <= buffer[{read_half, beat}];
      if (rst) begin
        write_half <= 1'b0;
        read_half  <= 1'b0;
        write_beat <= '0;
        full       <= 2'd0;
      end else begin
        if (put) write_beat <= filled ? '0 : write_beat + 1'b1;
        if (filled) write_half <= !write_half;
        if (emptied) read_half <= !read_half;
        full <= full + 2'(filled) - 2'(emptied);
      end
    end
  end

  logic [WordWidth-1:0] weights;
  rom #(.WIDTH(WordWidth), .DEPTH(Depth), .BLOCK(WEIGHT_BLOCK), .WORDS(WEIGHTS)) weight_rom (
      .clk, .ce(1'b1), .address, .word(weights)
  );

  // Bit i: what was begun i cycles ago, and whether a row ends with it.
  logic [Summed:1] begun, ends;
  always_ff @(posedge clk) begin
    if (rst) begun <= '0;
    else begun <= {begun[Summed-1:1], step};
    ends <= {ends[Summed-1:1], last_beat};
  end
  logic arrives, completes;
  assign arrives   = begun[Summed];
  assign completes = arrives && ends[Summed];

  // The sum of the beat's products, for each row.
  logic [PE*OUT_WIDTH-1:0] sums;
  logic [PE-1:0] lacks;
  if (STYLE == 2) begin : g_shared
    localparam int Field = HIGH_WIDTH + WEIGHT_WIDTH;
    localparam int Packed = HIGH_WIDTH + SPLIT;
    for (genvar p = 0; p < Pairs; p++) begin : g_pair
      logic [SIMD*SPLIT-1:0] low;
      logic [SIMD*(IN_WIDTH+HIGH_WIDTH)-1:0] high;
      logic [SIMD-1:0] borrowed;
      for (genvar i = 0; i < SIMD; i++) begin : g_column
        logic [HIGH_WIDTH-1:0] odd;
        logic [WEIGHT_WIDTH-1:0] even;
        assign {odd, even} = weights[(p*SIMD+i)*Field+:Field];
        mult #(.A_WIDTH(IN_WIDTH), .A_SIGNED(IN_SIGNED), .B_WIDTH(Packed), .B_SIGNED(1'b1), .DSP(1'b1)) times (
            .clk, .ce(1'b1), .a(x[i*IN_WIDTH+:IN_WIDTH]), .b({odd, SPLIT'($signed(even))}),
            .product({high[i*(IN_WIDTH+HIGH_WIDTH)+:IN_WIDTH+HIGH_WIDTH], low[i*SPLIT+:SPLIT]})
        );
        // A negative lower product has borrowed one from the upper.
        assign borrowed[i] = low[i*SPLIT+SPLIT-1];
      end
      dot_tree #(.LANES(SIMD), .WIDTH(SPLIT), .OUT_WIDTH(OUT_WIDTH)) even_sum (
          .clk, .numbers(low), .missing('0), .sum(sums[2*p*OUT_WIDTH+:OUT_WIDTH]), .lacks(lacks[2*p])
      );
      if (2 * p + 1 < PE) begin : g_odd
        dot_tree #(.LANES(SIMD), .WIDTH(IN_WIDTH + HIGH_WIDTH), .OUT_WIDTH(OUT_WIDTH)) odd_sum (
            .clk, .numbers(high), .missing(borrowed), .sum(sums[(2*p+1)*OUT_WIDTH+:OUT_WIDTH]), .lacks(lacks[2*p+1])
        );
      end else begin : g_none
        logic unused;
        assign unused = &{high, borrowed};
      end
    end
  end else begin : g_single
    localparam int Width = STYLE == 3 ? IN_WIDTH + int'(!IN_SIGNED) : IN_WIDTH + WEIGHT_WIDTH;
    for (genvar p = 0; p < PE; p++) begin : g_row
      logic [SIMD*Width-1:0] numbers;
      logic [SIMD-1:0] missing;
      for (genvar i = 0; i < SIMD; i++) begin : g_column
        logic [WEIGHT_WIDTH-1:0] weight;
        logic [IN_WIDTH-1:0] number;
        assign weight = weights[(p*SIMD+i)*WEIGHT_WIDTH+:WEIGHT_WIDTH];
        assign number = x[i*IN_WIDTH+:IN_WIDTH];
        if (STYLE == 3) begin : g_sign
          logic [Width-1:0] wide;
          assign wide = IN_SIGNED ? Width'($signed(number)) : Width'(number);
          always_ff @(posedge clk) begin
            numbers[i*Width+:Width] <= (WEIGHT_WIDTH == 1 || weight[0]) ? wide ^ {Width{weight[WEIGHT_WIDTH-1]}} : '0;
            missing[i]              <= weight[WEIGHT_WIDTH-1];
          end
        end else begin : g_product
          assign missing[i] = 1'b0;
          mult #(
              .A_WIDTH(IN_WIDTH), .A_SIGNED(IN_SIGNED), .B_WIDTH(WEIGHT_WIDTH), .B_SIGNED(1'b1), .DSP(STYLE == 1)
          ) times (.clk, .ce(1'b1), .a(number), .b(weight), .product(numbers[i*Width+:Width]));
        end
      end
      dot_tree #(.LANES(SIMD), .WIDTH(Width), .OUT_WIDTH(OUT_WIDTH)) row (
          .clk, .numbers, .missing, .sum(sums[p*OUT_WIDTH+:OUT_WIDTH]), .lacks(lacks[p])
      );
    end
  end

  // Sums over the beats of a row.
  logic [PE*OUT_WIDTH-1:0] totals, results;
  logic done;
  for (genvar p = 0; p < PE; p++) begin : g_total
    logic [OUT_WIDTH-1:0] total, running;
    assign total = running + sums[p*OUT_WIDTH+:OUT_WIDTH] + OUT_WIDTH'(lacks[p]);
    if (BEATS == 1) begin : g_whole
      assign running = '0;
    end else begin : g_parts
      always_ff @(posedge clk) begin
        if (rst || completes) running <= '0;
        else if (arrives) running <= total;
      end
    end
    always_ff @(posedge clk) if (completes) totals[p*OUT_WIDTH+:OUT_WIDTH] <= total;
  end

  if (BIAS) begin : g_bias
    logic total_done;
    logic [RowBits-1:0] row;
    logic [PE*OUT_WIDTH-1:0] biases;
    rom #(.WIDTH(PE * OUT_WIDTH), .DEPTH(Rows), .WORDS(BIASES)) bias_rom (
        .clk, .ce(1'b1), .address(row), .word(biases)
    );
    always_ff @(posedge clk) begin
      if (rst) begin
        row        <= '0;
        total_done <= 1'b0;
        done       <= 1'b0;
      end else begin
        // The word asked for now meets the row that is complete two cycles later.
        if (begun[Summed-1] && ends[Summed-1]) row <= row == RowBits'(Rows - 1) ? '0 : row + 1'b1;
        total_done <= completes;
        done       <= total_done;
      end
      if (total_done) begin
        for (int p = 0; p < PE; p++) begin
          results[p*OUT_WIDTH+:OUT_WIDTH] <= totals[p*OUT_WIDTH+:OUT_WIDTH] + biases[p*OUT_WIDTH+:OUT_WIDTH];
        end
      end
    end
  end else begin : g_no_bias
    assign results = totals;
    always_ff @(posedge clk) done <= completes && !rst;
  end

  if (Queue) begin : g_queue
    logic always_ready;  // room was kept when the result was begun
    fifo #(.WIDTH(PE * OUT_WIDTH), .DEPTH(Slots)) queue (
        .clk, .rst, .in_valid(done), .in_ready(always_ready), .in_data(results), .out_valid, .out_ready, .out_data
    );
    logic unused;
    assign unused = always_ready;
  end else begin : g_register
    logic kept;
    always_ff @(posedge clk) kept <= !rst && out_valid && !out_ready;
    assign out_valid = done || kept;
    assign out_data  = results;
  end
endmodule
