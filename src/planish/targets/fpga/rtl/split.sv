// One stream for several readers. Each takes a beat at its own time; the beat goes when all have taken it.
//
// Parameters   WIDTH    bits of a beat
//              OUTPUTS  readers
// Ports        in   WIDTH
//              out  a valid and a ready for each reader, which all see the same WIDTH bits
// Latency      0
// Interval     1 cycle
module split #(
    parameter int WIDTH   = 8,
    parameter int OUTPUTS = 2
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               in_valid,
    output logic               in_ready,
    input  logic [  WIDTH-1:0] in_data,
    output logic [OUTPUTS-1:0] out_valid,
    input  logic [OUTPUTS-1:0] out_ready,
    output logic [  WIDTH-1:0] out_data
);
  logic [OUTPUTS-1:0] taken;  // readers that have this beat already

  assign out_data  = in_data;
  assign out_valid = {OUTPUTS{in_valid}} & ~taken;
  assign in_ready  = &(out_ready | taken);

  always_ff @(posedge clk) begin
    if (rst || (in_valid && in_ready)) taken <= '0;
    else taken <= taken | (out_valid & out_ready);
  end
endmodule
