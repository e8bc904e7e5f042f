// A queue. Nothing passes through it in the same cycle, so it also cuts long paths of `ready`.
//
// Parameters   WIDTH  bits of a beat
//              DEPTH  beats it holds at least
// Ports        in, out  WIDTH
// Latency      2 cycles, 3 where DEPTH is over 64
// Interval     1 cycle
module fifo #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 4
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
  localparam int Bits = DEPTH > 2 ? $clog2(DEPTH) : 1;

  (* no_rw_check *)  // a beat is read after the cycle in which it is written
  logic [WIDTH-1:0] memory[2**Bits];
  logic [Bits-1:0] write_at, read_at;
  logic [Bits:0] count;  // in the memory, not counting what has been read ahead of its taker
  logic put, get, read_valid, read_step;
  logic [WIDTH-1:0] read;

  assign in_ready = !count[Bits];
  assign put      = in_valid && in_ready;
  assign get      = read_step && count != '0;

  always_ff @(posedge clk) begin
    if (put) memory[write_at] <= in_data;
    if (read_step) read <= memory[read_at];
    if (rst) begin
      write_at   <= '0;
      read_at    <= '0;
      count      <= '0;
      read_valid <= 1'b0;
    end else begin
      if (put) write_at <= write_at + 1'b1;
      if (get) read_at <= read_at + 1'b1;
      count <= count + (Bits + 1)'(put) - (Bits + 1)'(get);
      if (read_step) read_valid <= count != '0;
    end
  end

  if (DEPTH > 64) begin : g_block
    // The second register is the output register of a block RAM, which is slow without it.
    always_ff @(posedge clk) begin
      if (rst) out_valid <= 1'b0;
      else if (!out_valid || out_ready) out_valid <= read_valid;
      if (!out_valid || out_ready) out_data <= read;
    end
    assign read_step = !read_valid || !out_valid || out_ready;
  end else begin : g_small
    assign out_valid = read_valid;
    assign out_data  = read;
    assign read_step = !read_valid || out_ready;
  end
endmodule
