// Watches every FIFO of a simulated design, and says at the end how full each has been, or 0 where no beat had to wait
// in it. Simulation only.
module monitor (
    input logic clk,
    input logic rst,
    input logic in_valid,
    input logic in_ready,
    input logic out_valid,
    input logic out_ready
);
  int   level, peak;
  logic waited;

  always_ff @(posedge clk) begin
    if (rst) begin
      level  <= 0;
      peak   <= 0;
      waited <= 1'b0;
    end else begin
      level <= level + int'(in_valid && in_ready) - int'(out_valid && out_ready);
      if (level > peak) peak <= level;
      if (out_valid && !out_ready) waited <= 1'b1;
    end
  end

  final $display("peak %m %0d", waited ? peak : 0);
endmodule

bind fifo monitor monitor (.*);
