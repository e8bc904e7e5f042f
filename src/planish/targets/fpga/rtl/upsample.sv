// Each place of up to three axes of space repeated: nearest-neighbor upsampling. The outer axes are repeated first, so
// that no memory holds a place twice.
//
// Parameters   WIDTH    bits of a beat
//              SIZE_i   of the input along axis i
//              TIMES_i  how often each place of axis i goes out
//              BEATS    of a place
// Ports        in, out  WIDTH
// Latency      1 cycle for each axis that is repeated
// Interval     1 cycle a beat that goes out
module upsample #(
    parameter int WIDTH   = 8,
    parameter int SIZE_1  = 3,
    parameter int SIZE_2  = 1,
    parameter int TIMES_0 = 2,
    parameter int TIMES_1 = 2,
    parameter int TIMES_2 = 1,
    parameter int BEATS   = 2
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
  logic slice_valid, slice_ready, row_valid, row_ready;
  logic [WIDTH-1:0] slice, row;
  replay #(.BITS(WIDTH), .BEATS(SIZE_1 * SIZE_2 * BEATS), .TIMES(TIMES_0)) slices (
      .clk, .rst, .in_valid, .in_ready, .in_data, .out_valid(slice_valid), .out_ready(slice_ready), .out_data(slice)
  );
  replay #(.BITS(WIDTH), .BEATS(SIZE_2 * BEATS), .TIMES(TIMES_1)) rows (
      .clk, .rst, .in_valid(slice_valid), .in_ready(slice_ready), .in_data(slice),
      .out_valid(row_valid), .out_ready(row_ready), .out_data(row)
  );
  replay #(.BITS(WIDTH), .BEATS(BEATS), .TIMES(TIMES_2)) places (
      .clk, .rst, .in_valid(row_valid), .in_ready(row_ready), .in_data(row), .out_valid, .out_ready, .out_data
  );
endmodule
