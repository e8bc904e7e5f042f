// The sum or the maximum of the lanes of one beat, in a tree of pairs with a register after each level.
//
// Parameters   LANES   numbers that come in
//              WIDTH   bits of each
//              SIGNED  1: two's complement, 0: unsigned
//              MAX     1: the largest number, 0: the sum
// Ports        ce       the registers move
//              numbers  LANES * WIDTH
//              result   WIDTH for the maximum, WIDTH + ceil(log2 LANES) for the sum
// Latency      ceil(log2 LANES) cycles
// Interval     1 cycle
module tree #(
    parameter int LANES  = 4,
    parameter int WIDTH  = 8,
    parameter bit SIGNED = 1'b1,
    parameter bit MAX    = 1'b0,
    localparam int Levels = $clog2(LANES),
    localparam int Result = MAX ? WIDTH : WIDTH + Levels
) (
    input  logic                   clk,
    input  logic                   ce,
    input  logic [LANES*WIDTH-1:0] numbers,
    output logic [Result-1:0]      result
);
  // One level has half the numbers of the one before; an odd last number goes on alone.
  for (genvar l = 0; l <= Levels; l++) begin : g_level
    localparam int Count = (LANES + (1 << l) - 1) >> l;
    localparam int Bits = MAX ? WIDTH : WIDTH + l;
    logic [Bits-1:0] values[Count];

    for (genvar i = 0; i < Count; i++) begin : g_value
      if (l == 0) begin : g_leaf
        assign values[i] = numbers[i*WIDTH+:WIDTH];
      end else begin : g_pair
        localparam int Before = (LANES + (1 << (l - 1)) - 1) >> (l - 1);
        localparam int From = MAX ? WIDTH : WIDTH + l - 1;
        logic [From-1:0] a;
        assign a = g_level[l-1].values[2*i];
        if (2 * i + 1 == Before) begin : g_alone
          if (MAX) begin : g_max
            always_ff @(posedge clk) if (ce) values[i] <= a;
          end else begin : g_sum
            always_ff @(posedge clk) if (ce) values[i] <= {SIGNED & a[From-1], a};
          end
        end else begin : g_both
          logic [From-1:0] b;
          assign b = g_level[l-1].values[2*i+1];
          if (MAX) begin : g_max
            logic [WIDTH:0] less;  // the sign of the difference, which leaves a chain of carries sooner than the carry
            assign less = {SIGNED & a[WIDTH-1], a} - {SIGNED & b[WIDTH-1], b};
            always_ff @(posedge clk) if (ce) values[i] <= less[WIDTH] ? b : a;
          end else begin : g_sum
            always_ff @(posedge clk) if (ce) values[i] <= {SIGNED & a[From-1], a} + {SIGNED & b[From-1], b};
          end
        end
      end
    end
  end
  assign result = g_level[Levels].values[0];

  if (Levels == 0) begin : g_wire
    logic unused;
    assign unused = clk | ce;
  end
endmodule
