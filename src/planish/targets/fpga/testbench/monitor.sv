// Watches every FIFO of a simulated design, and says at the end how full each has been. Simulation only.
module monitor (
    input logic clk,
    input logic rst,
    input logic in_valid,
    input logic in_ready,
    input logic out_valid,
    input logic out_ready
);
    int level, peak;

    always_ff @(posedge clk) begin
        if (rst) begin
            level <= 0;
            peak  <= 0;
        end else begin
            level <= level + int'(in_valid && in_ready) - int'(out_valid && out_ready);
            if (level > peak) peak <= level;
        end
    end

    final $display("peak %m %0d", peak);
endmodule

bind fifo monitor monitor (.*);
