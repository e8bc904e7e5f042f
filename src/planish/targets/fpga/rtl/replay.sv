// Gives BEATS beats TIMES times over: a row that meets many rows, or a number that meets a whole row.
//
// The first time passes through while it is written to memory, so nothing waits for the memory to fill.
//
// Parameters   BITS   width of a beat
//              BEATS  beats that come in before they are repeated
//              TIMES  how often they go out; 1 is only wires
// Ports        in   BITS wide, BEATS beats
//              out  BITS wide, BEATS * TIMES beats
// Latency      1 cycle (0 where TIMES is 1)
// Interval     BEATS * TIMES cycles
module replay #(
    parameter int BITS  = 8,
    parameter int BEATS = 4,
    parameter int TIMES = 2
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
  if (TIMES == 1) begin : g_wires
    assign out_valid = in_valid;
    assign in_ready  = out_ready;
    assign out_data  = in_data;
    logic unused;
    assign unused = clk | rst;
  end else if (BEATS == 1) begin : g_register
    localparam int TimeBits = $clog2(TIMES);
    logic [TimeBits-1:0] left;  // times that are still to come after this one
    logic last;
    assign last     = left == '0;
    assign in_ready = !out_valid || (out_ready && last);
    always_ff @(posedge clk) begin
      if (rst) out_valid <= 1'b0;
      else if (in_ready) out_valid <= in_valid;
      if (in_ready) left <= TimeBits'(TIMES - 1);
      else if (out_ready) left <= left - 1'b1;
      if (in_ready) out_data <= in_data;
    end
  end else begin : g_memory
    localparam int BeatBits = $clog2(BEATS);
    localparam int TimeBits = $clog2(TIMES);

    (* no_rw_check *) logic [BITS-1:0] memory[2**BeatBits];
    logic [BeatBits-1:0] beat;
    logic [TimeBits-1:0] turn;
    logic fresh, step, advance;

    assign fresh    = turn == '0;
    assign step     = !out_valid || out_ready;
    assign advance  = step && (in_valid || !fresh);
    assign in_ready = step && fresh;

    // What passes through and what is read leave by the same edge, selected after it: the memory may be a block RAM.
    logic [BITS-1:0] passed, read;
    logic            replayed;
    assign out_data = replayed ? read : passed;

    always_ff @(posedge clk) begin
      if (step) begin
        passed   <= in_data;
        read     <= memory[beat];
        replayed <= !fresh;
      end
      if (advance && fresh) memory[beat] <= in_data;
    end

    always_ff @(posedge clk) begin
      if (rst) begin
        out_valid <= 1'b0;
        beat      <= '0;
        turn      <= '0;
      end else begin
        if (step) out_valid <= advance;
        if (advance) begin
          beat <= beat + 1'b1;
          if (beat == BeatBits'(BEATS - 1)) begin
            beat <= '0;
            turn <= turn == TimeBits'(TIMES - 1) ? '0 : turn + 1'b1;
          end
        end
      end
    end
  end
endmodule
