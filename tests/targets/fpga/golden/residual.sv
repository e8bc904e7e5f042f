// A residual, written by Planish.
//
// x: 2x5, 2 in each of 6 beats, 4 bits, signed
// output: 10, 1 in each of 10 beats, 5 bits, signed
module top (
    input  logic clk,
    input  logic rst,
    input  logic x_valid,
    output logic x_ready,
    input  logic [7:0] x_data,
    output logic output_valid,
    input  logic output_ready,
    output logic [4:0] output_data
);

  logic x_copy_0_valid, x_copy_0_ready;
  logic [7:0] x_copy_0_data;
  logic x_copy_1_valid, x_copy_1_ready;
  logic [7:0] x_copy_1_data;
  assign x_copy_1_data = x_copy_0_data;
  split #(
      .WIDTH(8),
      .OUTPUTS(2)
  ) x_split (
      .clk(clk),
      .rst(rst),
      .in_valid(x_valid),
      .in_ready(x_ready),
      .in_data(x_data),
      .out_valid({x_copy_1_valid, x_copy_0_valid}),
      .out_ready({x_copy_1_ready, x_copy_0_ready}),
      .out_data(x_copy_0_data)
  );

  // Linear at block.fc: 2x5 -> 2x5, 2 in, 3 out a cycle, a sample in 12 cycles
  logic block_fc_linear_valid, block_fc_linear_ready;
  logic [29:0] block_fc_linear_data;
  matvec #(
      .SIMD(2),
      .PE(3),
      .IN_WIDTH(4),
      .IN_SIGNED(1),
      .BEATS(3),
      .PASSES(2),
      .GROUPS(1),
      .STYLE(2),
      .WEIGHT_WIDTH(3),
      .HIGH_WIDTH(3),
      .SPLIT(6),
      .WEIGHT_BLOCK(0),
      .BIAS(1),
      .OUT_WIDTH(10),
      .WEIGHTS("memories/block_fc_linear_weights.hex"),
      .BIASES("memories/block_fc_linear_biases.hex")
  ) block_fc_linear (
      .clk(clk),
      .rst(rst),
      .in_valid(x_copy_0_valid),
      .in_ready(x_copy_0_ready),
      .in_data(x_copy_0_data),
      .out_valid(block_fc_linear_valid),
      .out_ready(block_fc_linear_ready),
      .out_data(block_fc_linear_data)
  );

  // Requantize at block.act: 2x5 -> 2x5, 3 in, 3 out a cycle, a sample in 4 cycles
  logic block_act_requantize_valid, block_act_requantize_ready;
  logic [11:0] block_act_requantize_data;
  requantize #(
      .LANES(3),
      .WIDTH(10),
      .SIGNED(1),
      .BEATS(2),
      .FACTOR_WIDTH(0),
      .CHANNELS(0),
      .FACTOR(1),
      .SHIFT(2),
      .EVEN(1),
      .UP(0),
      .OUT_WIDTH(4),
      .LOW(-8),
      .HIGH(7),
      .DSP(1)
  ) block_act_requantize (
      .clk(clk),
      .rst(rst),
      .in_valid(block_fc_linear_valid),
      .in_ready(block_fc_linear_ready),
      .in_data(block_fc_linear_data),
      .out_valid(block_act_requantize_valid),
      .out_ready(block_act_requantize_ready),
      .out_data(block_act_requantize_data)
  );

  logic x_copy_1_by_3_valid, x_copy_1_by_3_ready;
  logic [11:0] x_copy_1_by_3_data;
  lanes #(
      .WIDTH(4),
      .ROW(5),
      .LANES_IN(2),
      .LANES_OUT(3)
  ) x_copy_1_lanes (
      .clk(clk),
      .rst(rst),
      .in_valid(x_copy_1_valid),
      .in_ready(x_copy_1_ready),
      .in_data(x_copy_1_data),
      .out_valid(x_copy_1_by_3_valid),
      .out_ready(x_copy_1_by_3_ready),
      .out_data(x_copy_1_by_3_data)
  );

  logic block_add_a_kept_valid, block_add_a_kept_ready;
  logic [11:0] block_add_a_kept_data;
  fifo #(
      .WIDTH(12),
      .DEPTH(9)
  ) block_add_a_fifo (
      .clk(clk),
      .rst(rst),
      .in_valid(x_copy_1_by_3_valid),
      .in_ready(x_copy_1_by_3_ready),
      .in_data(x_copy_1_by_3_data),
      .out_valid(block_add_a_kept_valid),
      .out_ready(block_add_a_kept_ready),
      .out_data(block_add_a_kept_data)
  );

  // Add at block: 2x5, 2x5 -> 2x5, 3 and 3 in, 3 out a cycle, a sample in 4 cycles
  logic block_add_valid, block_add_ready;
  logic [14:0] block_add_data;
  add #(
      .LANES(3),
      .OUT_WIDTH(5),
      .A_LANES(3),
      .A_WIDTH(4),
      .A_SIGNED(1),
      .A_SHIFT(0),
      .A_MINUS(0),
      .A_BEATS(1),
      .A_TIMES(1),
      .B_LANES(3),
      .B_WIDTH(4),
      .B_SIGNED(1),
      .B_SHIFT(0),
      .B_MINUS(0),
      .B_BEATS(1),
      .B_TIMES(1)
  ) block_add (
      .clk(clk),
      .rst(rst),
      .a_valid(block_add_a_kept_valid),
      .a_ready(block_add_a_kept_ready),
      .a_data(block_add_a_kept_data),
      .b_valid(block_act_requantize_valid),
      .b_ready(block_act_requantize_ready),
      .b_data(block_act_requantize_data),
      .out_valid(block_add_valid),
      .out_ready(block_add_ready),
      .out_data(block_add_data)
  );

  logic block_add_by_1_valid, block_add_by_1_ready;
  logic [4:0] block_add_by_1_data;
  lanes #(
      .WIDTH(5),
      .ROW(5),
      .LANES_IN(3),
      .LANES_OUT(1)
  ) block_add_lanes (
      .clk(clk),
      .rst(rst),
      .in_valid(block_add_valid),
      .in_ready(block_add_ready),
      .in_data(block_add_data),
      .out_valid(block_add_by_1_valid),
      .out_ready(block_add_by_1_ready),
      .out_data(block_add_by_1_data)
  );

  logic flat_reshape_valid, flat_reshape_ready;
  logic [4:0] flat_reshape_data;
  assign flat_reshape_valid = block_add_by_1_valid;
  assign block_add_by_1_ready = flat_reshape_ready;
  assign flat_reshape_data = block_add_by_1_data;

  assign output_valid = flat_reshape_valid;
  assign flat_reshape_ready = output_ready;
  assign output_data = flat_reshape_data;
endmodule
