// A register in a stream, forward and backward: `ready` comes from a register too, so long paths of it end here.
//
// Parameters   WIDTH  bits of a beat
// Ports        in, out  WIDTH
// Latency      1 cycle
// Interval     1 cycle
module skid #(
    parameter int WIDTH = 8
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
  logic [WIDTH-1:0] spare;  // what came in when the reader stopped; full when `ready` is not given
  logic step;
  assign step = !out_valid || out_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      out_valid <= 1'b0;
      in_ready  <= 1'b1;
    end else begin
      if (step) out_valid <= in_valid || !in_ready;
      in_ready <= step || (in_ready && !in_valid);
    end
    if (step) out_data <= in_ready ? in_data : spare;
    if (in_ready) spare <= in_data;
  end
endmodule
