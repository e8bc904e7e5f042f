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

  logic x_held_valid, x_held_ready;
  logic [7:0] x_held_data;
  skid #(
  ) x_skid (
      .clk(clk),
      .rst(rst),
      .in_valid(x_valid),
      .in_ready(x_ready),
      .in_data(x_data),
      .out_valid(x_held_valid),
      .out_ready(x_held_ready),
      .out_data(x_held_data)
  );

  logic x_copy_0_valid, x_copy_0_ready;
  logic [7:0] x_copy_0_data;
  logic x_copy_1_valid, x_copy_1_ready;
  logic [7:0] x_copy_1_data;
  assign x_copy_1_data = x_copy_0_data;
  split #(
  ) x_split (
      .clk(clk),
      .rst(rst),
      .in_valid(x_held_valid),
      .in_ready(x_held_ready),
      .in_data(x_held_data),
      .out_valid({x_copy_1_valid, x_copy_0_valid}),
      .out_ready({x_copy_1_ready, x_copy_0_ready}),
      .out_data(x_copy_0_data)
  );

  // Linear at block.fc: 2x5 -> 2x5, 2 in, 3 out a cycle, a sample in 12 cycles
  logic block_fc_linear_valid, block_fc_linear_ready;
  logic [29:0] block_fc_linear_data;
  matvec #(
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

  logic block_add_held_valid, block_add_held_ready;
  logic [14:0] block_add_held_data;
  skid #(
  ) block_add_skid (
      .clk(clk),
      .rst(rst),
      .in_valid(block_add_valid),
      .in_ready(block_add_ready),
      .in_data(block_add_data),
      .out_valid(block_add_held_valid),
      .out_ready(block_add_held_ready),
      .out_data(block_add_held_data)
  );

  logic block_add_held_by_1_valid, block_add_held_by_1_ready;
  logic [4:0] block_add_held_by_1_data;
  lanes #(
  ) block_add_held_lanes (
      .clk(clk),
      .rst(rst),
      .in_valid(block_add_held_valid),
      .in_ready(block_add_held_ready),
      .in_data(block_add_held_data),
      .out_valid(block_add_held_by_1_valid),
      .out_ready(block_add_held_by_1_ready),
      .out_data(block_add_held_by_1_data)
  );

  logic flat_reshape_valid, flat_reshape_ready;
  logic [4:0] flat_reshape_data;
  assign flat_reshape_valid = block_add_held_by_1_valid;
  assign block_add_held_by_1_ready = flat_reshape_ready;
  assign flat_reshape_data = block_add_held_by_1_data;

  assign output_valid = flat_reshape_valid;
  assign flat_reshape_ready = output_ready;
  assign output_data = flat_reshape_data;
endmodule
