// Axes in another order: a sample is written to one half of a memory as it comes, and read from the other one in the
// order in which it goes, by counters that run inside one another.
//
// Parameters   BITS    width of a beat
//              BEATS   beats of a sample
//              COUNT0  how far the outermost counter runs, ..., COUNT5 the innermost; their product is BEATS
//              STEP0   how many beats of the input it goes on each time, ..., STEP5
// Ports        in   BITS, BEATS beats in the order of the input
//              out  BITS, BEATS beats in the order of the output
// Latency      BEATS + 2 cycles
// Interval     BEATS cycles
module permute #(
    parameter int BITS   = 8,
    parameter int BEATS  = 12,
    parameter int COUNT0 = 1,
    parameter int COUNT1 = 1,
    parameter int COUNT2 = 1,
    parameter int COUNT3 = 1,
    parameter int COUNT4 = 4,
    parameter int COUNT5 = 3,
    parameter int STEP0  = 0,
    parameter int STEP1  = 0,
    parameter int STEP2  = 0,
    parameter int STEP3  = 0,
    parameter int STEP4  = 1,
    parameter int STEP5  = 4
) (
    input  logic            clk,
    input  logic            rst,
    input  logic            in_valid,
    output logic            in_ready,
    input  logic [BITS-1:0] in_data,
    output logic            out_valid,
    input  logic            out_ready,
    output logic [BITS-1:0] out_data
);
  localparam int Levels = 6;
  localparam int Counts[Levels] = '{COUNT0, COUNT1, COUNT2, COUNT3, COUNT4, COUNT5};
  localparam int Steps[Levels] = '{STEP0, STEP1, STEP2, STEP3, STEP4, STEP5};
  localparam int AddressBits = $clog2(BEATS);

  logic [1:0] full;
  logic writes, reads;  // which half
  logic write, read, step, all_written, all_read;
  logic [AddressBits-1:0] to, from;

  assign in_ready    = !full[writes];
  assign write       = in_valid && in_ready;
  assign all_written = write && to == AddressBits'(BEATS - 1);
  assign step        = !out_valid || out_ready;
  assign read        = step && full[reads];

  always_ff @(posedge clk) begin
    if (rst) begin
      to     <= '0;
      full   <= '0;
      writes <= 1'b0;
      reads  <= 1'b0;
    end else begin
      if (write) to <= all_written ? '0 : to + 1'b1;
      if (all_written) begin
        full[writes] <= 1'b1;
        writes       <= !writes;
      end
      if (all_read) begin
        full[reads] <= 1'b0;
        reads       <= !reads;
      end
    end
  end

  // A counter moves when all inside it are at their ends; the address then goes back by what they went and on by a step.
  logic [Levels:0] carry;  // all counters from here inward are at their ends
  logic [Levels-1:0][AddressBits-1:0] jumps;
  assign carry[Levels] = 1'b1;
  assign all_read      = read && carry[0];
  for (genvar l = 0; l < Levels; l++) begin : g_level
    localparam int Count = Counts[l];
    if (Count == 1) begin : g_still
      assign carry[l] = carry[l+1];
      assign jumps[l] = '0;
    end else begin : g_counter
      localparam int CountBits = $clog2(Count);
      logic [CountBits-1:0] at;
      assign carry[l] = carry[l+1] && at == CountBits'(Count - 1);
      assign jumps[l] = AddressBits'(jump(l));
      always_ff @(posedge clk) begin
        if (rst) at <= '0;
        else if (read && carry[l+1]) at <= carry[l] ? '0 : at + 1'b1;
      end
    end
  end

  function automatic int jump(input int level);
    jump = Steps[level];
    for (int i = level + 1; i < Levels; i++) jump -= (Counts[i] - 1) * Steps[i];
  endfunction

  logic [AddressBits-1:0] by;
  always_comb begin
    by = '0;
    for (int l = 0; l < Levels; l++) if (carry[l+1] && !carry[l]) by = jumps[l];
  end
  always_ff @(posedge clk) begin
    if (rst) from <= '0;
    else if (read) from <= carry[0] ? '0 : from + by;
  end

  ram #(.WIDTH(BITS), .DEPTH(2 ** (AddressBits + 1))) halves (
      .clk, .write, .to({writes, to}), .data(in_data), .ce(step), .from({reads, from}), .word(out_data)
  );
  delay #(.BITS(1), .CYCLES(2)) valid (.clk, .rst, .ce(step), .in(full[reads]), .out(out_valid));
endmodule
