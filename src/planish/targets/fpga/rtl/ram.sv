// Words that are written at one place while others are read, in two cycles: the second register is the output register
// of a block RAM, which is slow without it. A word that is read in the cycle in which it is written is undefined.
//
// Parameters   WIDTH  bits of a word
//              DEPTH  words
// Ports        write    takes `data` into word `to`
//              ce       the registers of the reader move
//              from     which word
//              word     WIDTH
// Latency      2 cycles
// Interval     1 cycle
module ram #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16,
    localparam int Bits = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input  logic             clk,
    input  logic             write,
    input  logic [ Bits-1:0] to,
    input  logic [WIDTH-1:0] data,
    input  logic             ce,
    input  logic [ Bits-1:0] from,
    output logic [WIDTH-1:0] word
);
  (* no_rw_check *) logic [WIDTH-1:0] words[2**Bits];
  logic [WIDTH-1:0] found;
  always_ff @(posedge clk) begin
    if (write) words[to] <= data;
    if (ce) begin
      found <= words[from];
      word  <= found;
    end
  end
endmodule
