// Words that never change, read in two cycles: the second register is the output register of a block RAM, which is
// slow without it.
//
// Parameters   WIDTH  bits of a word
//              DEPTH  words
//              BLOCK  1: block RAM, 0: LUTs
//              WORDS  hexadecimal file, a word a line
// Ports        ce       the registers move
//              address  which word
//              word     WIDTH
// Latency      2 cycles
// Interval     1 cycle
module rom #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16,
    parameter bit BLOCK = 1'b0,
    parameter WORDS = "",
    localparam int Bits = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input  logic             clk,
    input  logic             ce,
    input  logic [ Bits-1:0] address,
    output logic [WIDTH-1:0] word
);
  logic [WIDTH-1:0] found;
  if (BLOCK) begin : g_block
    (* rom_style = "block" *) logic [WIDTH-1:0] words[2**Bits];
    initial if (WORDS != "") $readmemh(WORDS, words, 0, DEPTH - 1);
    always_ff @(posedge clk) if (ce) found <= words[address];
  end else begin : g_luts
    logic [WIDTH-1:0] words[2**Bits];
    initial if (WORDS != "") $readmemh(WORDS, words, 0, DEPTH - 1);
    always_ff @(posedge clk) if (ce) found <= words[address];
  end
  always_ff @(posedge clk) if (ce) word <= found;
endmodule
