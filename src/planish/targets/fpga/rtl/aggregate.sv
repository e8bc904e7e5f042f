// A fixed sparse matrix times the nodes' rows of channels: what each node hears from its neighbors.
//
// All nodes are written to one half of a memory while the other half is used. The edges that lead to a node stand one
// after the other in a list; for each beat of channels they are gone through once. A node without edges has one of
// weight 0.
//
// Parameters   LANES     channels in a beat
//              WIDTH     bits of a number
//              SIGNED    1: two's complement, 0: unsigned
//              NODES     nodes that come in
//              TARGETS   nodes that go out
//              BEATS     beats of a node
//              EDGES     entries of the list
//              WEIGHT    bits of a weight, two's complement
//              SOURCE    bits of the place where a node's first beat lies
//              DEGREE    bits of the number of a node's edges
//              LIST      file of EDGES words: weight above source * BEATS
//              DEGREES   file of TARGETS words: edges of each node, less 1
//              OUT_WIDTH bits of a result
//              DSP       1: multiply in DSP blocks
// Ports        in   LANES * WIDTH, NODES rows of BEATS beats
//              out  LANES * OUT_WIDTH, TARGETS rows of BEATS beats
// Latency      NODES * BEATS + edges of the first node + 8 cycles
// Interval     EDGES * BEATS + 3 cycles, or NODES * BEATS if they are more
module aggregate #(
    parameter int LANES     = 2,
    parameter int WIDTH     = 8,
    parameter bit SIGNED    = 1'b1,
    parameter int NODES     = 5,
    parameter int TARGETS   = 5,
    parameter int BEATS     = 3,
    parameter int EDGES     = 9,
    parameter int WEIGHT    = 4,
    parameter int SOURCE    = 4,
    parameter int DEGREE    = 2,
    parameter     LIST      = "",
    parameter     DEGREES   = "",
    parameter int OUT_WIDTH = 16,
    parameter bit DSP       = 1'b1
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
  localparam int Words = NODES * BEATS;
  localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;
  localparam int BeatBits = BEATS > 1 ? $clog2(BEATS) : 1;
  localparam int EdgeBits = EDGES > 1 ? $clog2(EDGES) : 1;
  localparam int TargetBits = TARGETS > 1 ? $clog2(TARGETS) : 1;

  // ---- nodes go in ----
  logic [1:0] full;
  logic writes, reads, half;  // which half: of those that write, that walk, that read
  logic write, step, go, all_written, all_issued;
  logic [2:0] frees;  // the last edge of a sample is on its way to the memory
  logic [AddressBits-1:0] to;
  assign in_ready    = !full[writes];
  assign write       = in_valid && in_ready;
  assign all_written = write && to == AddressBits'(Words - 1);
  always_ff @(posedge clk) begin
    if (rst) begin
      to     <= '0;
      full   <= '0;
      writes <= 1'b0;
      reads  <= 1'b0;
    end else begin
      if (write) to <= all_written ? '0 : to + 1'b1;
      if (all_written) begin
        full[writes] <= 1'b1;
        writes       <= !writes;
      end
      if (all_issued) reads <= !reads;
      if (step && frees[2]) full[half] <= 1'b0;
    end
  end

  // ---- the walk: targets, their beats, their edges; the degree of the next target is read ahead ----
  logic [DEGREE-1:0] degrees[TARGETS];
  initial $readmemh(DEGREES, degrees);

  logic [1:0] ready;  // the degrees of the next target and of this one have come
  logic [TargetBits-1:0] next_target, target;
  logic [DEGREE-1:0] next_degree, degree, at;
  logic [BeatBits-1:0] beat;
  logic [EdgeBits-1:0] edge_at, first_edge;
  logic last_edge, last_beat, last_target, take;
  assign go          = full[reads] && ready[1] && frees == '0;
  assign last_edge   = at == degree;
  assign last_beat   = beat == BeatBits'(BEATS - 1);
  assign last_target = target == TargetBits'(TARGETS - 1);
  assign all_issued  = step && go && last_edge && last_beat && last_target;
  assign take        = !ready[1] || (step && go && last_edge && last_beat);
  always_ff @(posedge clk) begin
    if (rst) begin
      ready       <= '0;
      next_target <= '0;
      target      <= '0;
      beat        <= '0;
      at          <= '0;
      edge_at     <= '0;
      first_edge  <= '0;
    end else begin
      if (take) begin
        ready       <= {ready[0], 1'b1};
        next_target <= next_target == TargetBits'(TARGETS - 1) ? '0 : next_target + 1'b1;
      end
      if (step && go) begin
        at      <= last_edge ? '0 : at + 1'b1;
        edge_at <= edge_at + 1'b1;
        if (last_edge) begin
          beat    <= last_beat ? '0 : beat + 1'b1;
          edge_at <= first_edge;
          if (last_beat) begin
            target     <= last_target ? '0 : target + 1'b1;
            edge_at    <= last_target ? '0 : edge_at + 1'b1;
            first_edge <= last_target ? '0 : edge_at + 1'b1;
          end
        end
      end
    end
    if (take) begin
      next_degree <= degrees[next_target];
      degree      <= next_degree;
    end
  end

  // ---- an edge, its address, its word, each in a cycle; the half is free when its last word is read ----
  logic [WEIGHT+SOURCE-1:0] entry;
  logic [AddressBits-1:0] from;
  logic [BeatBits-1:0] beat_then;
  logic [WEIGHT-1:0] weight;
  logic half_then;
  logic [LANES*WIDTH-1:0] numbers;
  rom #(
      .WIDTH(WEIGHT + SOURCE), .DEPTH(EDGES), .BLOCK(EDGES * (WEIGHT + SOURCE) > 2048), .WORDS(LIST)
  ) list (
      .clk, .ce(step), .address(edge_at), .word(entry)
  );
  delay #(.BITS(BeatBits + 1), .CYCLES(2)) with_entry (
      .clk, .rst, .ce(step), .in({reads, beat}), .out({half_then, beat_then})
  );
  always_ff @(posedge clk) begin
    if (step) begin
      from <= AddressBits'(entry[SOURCE-1:0]) + AddressBits'(beat_then);
      half <= half_then;
    end
  end
  ram #(.WIDTH(LANES * WIDTH), .DEPTH(2 ** (AddressBits + 1))) halves (
      .clk, .write, .to({writes, to}), .data(in_data), .ce(step), .from({half, from}), .word(numbers)
  );
  always_ff @(posedge clk) begin
    if (rst) frees <= '0;
    else if (step) frees <= {frees[1:0], all_issued};
  end
  delay #(.BITS(WEIGHT), .CYCLES(3)) with_numbers (
      .clk, .rst, .ce(step), .in(entry[WEIGHT+SOURCE-1:SOURCE]), .out(weight)
  );

  // ---- products, and their sums over the edges ----
  logic valid, ends, begins;
  delay #(.BITS(2), .CYCLES(8)) along (.clk, .rst, .ce(step), .in({go, last_edge}), .out({valid, ends}));
  assign step = !out_valid || out_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      begins    <= 1'b1;
      out_valid <= 1'b0;
    end else if (step) begin
      out_valid <= valid && ends;
      if (valid) begins <= ends;
    end
  end
  for (genvar i = 0; i < LANES; i++) begin : g_lane
    logic [WIDTH+WEIGHT-1:0] product;
    logic [OUT_WIDTH-1:0] wide, result;
    logic unused;  // what is known to be a copy of the sign, or zero
    assign unused = ^product;
    mult #(.A_WIDTH(WIDTH), .A_SIGNED(SIGNED), .B_WIDTH(WEIGHT), .B_SIGNED(1'b1), .DSP(DSP)) times (
        .clk, .ce(step), .a(numbers[i*WIDTH+:WIDTH]), .b(weight), .product
    );
    assign wide = OUT_WIDTH'($signed(product));
    always_ff @(posedge clk) if (step && valid) result <= begins ? wide : result + wide;
    assign out_data[i*OUT_WIDTH+:OUT_WIDTH] = result;
  end
endmodule
