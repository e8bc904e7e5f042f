// Zeros between the places of up to three axes of space, as before a transposed convolution.
//
// Parameters   WIDTH     bits of a beat
//              SIZE_i    of the input along axis i
//              STRIDE_i  distance of what was next to each other
//              BEATS     of a place
// Ports        in, out  WIDTH
// Latency      1 cycle
// Interval     1 cycle a beat that goes out
module spread #(
    parameter int WIDTH    = 8,
    parameter int SIZE_0   = 3,
    parameter int SIZE_1   = 3,
    parameter int SIZE_2   = 1,
    parameter int STRIDE_0 = 2,
    parameter int STRIDE_1 = 2,
    parameter int STRIDE_2 = 1,
    parameter int BEATS    = 2
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
  // Loops from the outermost: for each axis, places of the input and the steps from one to the next; then beats.
  localparam int Loops = 7;
  typedef int loops_t[Loops];
  localparam loops_t Counts = '{SIZE_0, STRIDE_0, SIZE_1, STRIDE_1, SIZE_2, STRIDE_2, BEATS};

  logic step, go, number;
  logic [Loops:1] ends;  // bit i: loop i and all within it are at their last turn
  logic [2:0] between;  // the axis stands between two places
  assign ends[Loops] = 1'b1;
  for (genvar i = 0; i < Loops; i++) begin : g_loop
    localparam int Bits = Counts[i] > 1 ? $clog2(Counts[i]) : 1;
    logic [Bits-1:0] turn;
    logic last;
    if (i > 0) begin : g_ends
      assign ends[i] = ends[i+1] && last;
    end
    if (i % 2 == 1 && i < Loops - 1) begin : g_step
      // Nothing comes after the last place.
      assign last = turn == Bits'(Counts[i] - 1) || g_loop[i-1].last;
      assign between[i/2] = turn != '0;
    end else begin : g_place
      assign last = turn == Bits'(Counts[i] - 1);
    end
    always_ff @(posedge clk) begin
      if (rst) turn <= '0;
      else if (go && ends[i+1]) turn <= last ? '0 : turn + 1'b1;
    end
  end

  assign number   = between == '0;
  assign step     = !out_valid || out_ready;
  assign go       = step && (in_valid || !number);
  assign in_ready = step && number;
  always_ff @(posedge clk) begin
    if (rst) out_valid <= 1'b0;
    else if (step) out_valid <= go;
    if (step) out_data <= number ? in_data : '0;
  end
endmodule
