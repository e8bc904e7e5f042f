// Another number of lanes. Rows keep their length; the last beat of a row is filled up with zeros.
//
// Beats are taken apart into pieces of as many lanes as divide both numbers, and put together again, a piece a cycle.
//
// Parameters   WIDTH      bits of a number
//              ROW        numbers in a row
//              LANES_IN   numbers in a beat that comes in
//              LANES_OUT  numbers in a beat that goes out
// Ports        in   LANES_IN * WIDTH
//              out  LANES_OUT * WIDTH
// Latency      a cycle for each piece of the first beat, and 1 where beats are taken apart
// Interval     a cycle a piece, ceil(ROW / piece) pieces a row
module lanes #(
    parameter int WIDTH     = 8,
    parameter int ROW       = 10,
    parameter int LANES_IN  = 4,
    parameter int LANES_OUT = 6
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [ LANES_IN*WIDTH-1:0] in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES_OUT*WIDTH-1:0] out_data
);
  function automatic int shared(input int a, input int b);
    int rest;
    while (b != 0) begin
      rest = a % b;
      a = b;
      b = rest;
    end
    return a;
  endfunction

  localparam int Piece = shared(LANES_IN, LANES_OUT);
  localparam int Bits = Piece * WIDTH;
  localparam int Pieces = (ROW + Piece - 1) / Piece;  // of a row
  localparam int PieceBits = Pieces > 1 ? $clog2(Pieces) : 1;

  // Both sides count the pieces of the row: what is beyond it is not handed over.
  logic piece_valid, piece_ready;
  logic [Bits-1:0] piece;

  if (LANES_IN == Piece) begin : g_whole
    assign piece_valid = in_valid;
    assign in_ready    = piece_ready;
    assign piece       = in_data;
  end else begin : g_apart
    localparam int Count = LANES_IN / Piece;
    localparam int CountBits = $clog2(Count);
    logic [LANES_IN*WIDTH-1:0] held;
    logic [PieceBits-1:0] place;
    logic [CountBits-1:0] left;  // pieces of the beat after this one
    logic last_of_row, last;
    assign in_ready = !piece_valid || (piece_ready && last);
    assign piece    = held[Bits-1:0];

    // What is to be known in the next cycle is found out in this one.
    logic [PieceBits-1:0] next_place;
    logic [CountBits-1:0] next_left;
    always_comb begin
      next_place = place;
      next_left  = left;
      if (piece_valid && piece_ready) begin
        next_place = last_of_row ? '0 : place + 1'b1;
        next_left  = left - 1'b1;
      end
      if (in_ready) next_left = CountBits'(Count - 1);
    end
    always_ff @(posedge clk) begin
      if (in_ready) held <= in_data;
      else if (piece_ready) held <= held >> Bits;
      if (rst) begin
        piece_valid <= 1'b0;
        place       <= '0;
        left        <= '0;
        last        <= 1'b0;
        last_of_row <= Pieces == 1;
      end else begin
        if (in_ready) piece_valid <= in_valid;
        place       <= next_place;
        left        <= next_left;
        last        <= next_left == '0 || next_place == PieceBits'(Pieces - 1);
        last_of_row <= next_place == PieceBits'(Pieces - 1);
      end
    end
  end

  if (LANES_OUT == Piece) begin : g_as_it_is
    assign out_valid   = piece_valid;
    assign piece_ready = out_ready;
    assign out_data    = piece;
    if (LANES_IN == Piece) begin : g_wires
      logic unused;
      assign unused = clk | rst;
    end
  end else begin : g_together
    localparam int Count = LANES_OUT / Piece;
    logic [Count-1:0] next;  // one bit: where the piece goes
    logic [PieceBits-1:0] place;
    logic last_of_row;
    assign last_of_row = place == PieceBits'(Pieces - 1);
    assign piece_ready = !out_valid || out_ready;
    always_ff @(posedge clk) begin
      if (rst) begin
        next      <= Count'(1);
        place     <= '0;
        out_valid <= 1'b0;
      end else if (piece_ready) begin
        out_valid <= piece_valid && (last_of_row || next[Count-1]);
        if (piece_valid) begin
          place <= last_of_row ? '0 : place + 1'b1;
          next  <= last_of_row ? Count'(1) : {next[Count-2:0], next[Count-1]};
        end
      end
    end
    for (genvar i = 0; i < Count; i++) begin : g_place
      always_ff @(posedge clk) begin
        if (piece_ready && piece_valid) begin
          if (next[i]) out_data[i*Bits+:Bits] <= piece;
          else if (next[0]) out_data[i*Bits+:Bits] <= '0;
        end
      end
    end
  end
endmodule
