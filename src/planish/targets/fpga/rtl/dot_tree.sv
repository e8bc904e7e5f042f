// The sum of numbers of which some still lack a one: -x is ~x and a one, which the adders take in as their carry.
//
// Pairs are added with a register after each level. An adder takes in the missing one of its first number and hands on
// that of its second, so one is left over in the end.
//
// Parameters   LANES      numbers
//              WIDTH      bits of each, two's complement
//              OUT_WIDTH  bits of the sum, which may wrap
// Ports        numbers  LANES * WIDTH
//              missing  LANES: one is to be added to this number
//              sum      OUT_WIDTH
//              lacks    one is to be added to the sum
// Latency      ceil(log2 LANES) cycles
// Interval     1 cycle
module dot_tree #(
    parameter int LANES     = 4,
    parameter int WIDTH     = 8,
    parameter int OUT_WIDTH = 10
) (
    input  logic                   clk,
    input  logic [LANES*WIDTH-1:0] numbers,
    input  logic [      LANES-1:0] missing,
    output logic [  OUT_WIDTH-1:0] sum,
    output logic                   lacks
);
  localparam int Levels = $clog2(LANES);

  for (genvar l = 0; l <= Levels; l++) begin : g_level
    localparam int Count = (LANES + (1 << l) - 1) >> l;
    localparam int Bits = WIDTH + l < OUT_WIDTH ? WIDTH + l : OUT_WIDTH;
    logic [Bits-1:0] values[Count];
    logic [Count-1:0] left;

    if (l == 0) begin : g_leaves
      for (genvar i = 0; i < Count; i++) begin : g_leaf
        assign values[i] = Bits'($signed(numbers[i*WIDTH+:WIDTH]));
      end
      assign left = missing;
    end else begin : g_pairs
      localparam int Before = (LANES + (1 << (l - 1)) - 1) >> (l - 1);
      for (genvar i = 0; i < Count; i++) begin : g_pair
        logic [Bits-1:0] a;
        assign a = Bits'($signed(g_level[l-1].values[2*i]));
        if (2 * i + 1 == Before) begin : g_alone
          always_ff @(posedge clk) begin
            values[i] <= a;
            left[i]   <= g_level[l-1].left[2*i];
          end
        end else begin : g_both
          logic [Bits-1:0] b;
          assign b = Bits'($signed(g_level[l-1].values[2*i+1]));
          always_ff @(posedge clk) begin
            values[i] <= a + b + Bits'(g_level[l-1].left[2*i]);
            left[i]   <= g_level[l-1].left[2*i+1];
          end
        end
      end
    end
  end
  assign sum   = OUT_WIDTH'($signed(g_level[Levels].values[0]));
  assign lacks = g_level[Levels].left[0];

  if (Levels == 0) begin : g_wire
    logic unused;
    assign unused = clk;
  end
endmodule
