// Windows over up to three axes of space: the beats of each window, one window after the other.
//
// The buffer holds LINES slices of the first axis as a ring. A row of windows begins when all slices that it looks at are
// there; slices that no later row needs are free when it ends. All addresses, also of what lies outside of the input,
// are sums modulo the ring, so that each step of the nested loops adds one constant. Axes that are not there have size 1.
//
// Parameters   WIDTH           bits of a beat
//              SIZE_i          of the input along axis i
//              KERNEL_i, STRIDE_i, DILATION_i, BEFORE_i (padding), COUNT_i (windows along the axis)
//              GROUPS, BEATS   a place of the input is GROUPS * BEATS beats; a window gives all its places' BEATS beats
//                              of the first group, then of the next
//              LINES           slices of the buffer: those of a window and at least a stride
//              FILL            beat that stands outside of the input
// Ports        in   WIDTH, in order (axis 0, 1, 2, group, beat)
//              out  WIDTH, in order (window 0, 1, 2, group, kernel 0, 1, 2, beat)
// Latency      the slices of the first row of windows, and 2 cycles
// Interval     1 cycle a beat
module window #(
    parameter int WIDTH      = 8,
    parameter int SIZE_0     = 5,
    parameter int SIZE_1     = 5,
    parameter int SIZE_2     = 1,
    parameter int KERNEL_0   = 3,
    parameter int KERNEL_1   = 3,
    parameter int KERNEL_2   = 1,
    parameter int STRIDE_0   = 1,
    parameter int STRIDE_1   = 1,
    parameter int STRIDE_2   = 1,
    parameter int DILATION_0 = 1,
    parameter int DILATION_1 = 1,
    parameter int DILATION_2 = 1,
    parameter int BEFORE_0   = 1,
    parameter int BEFORE_1   = 1,
    parameter int BEFORE_2   = 0,
    parameter int COUNT_0    = 5,
    parameter int COUNT_1    = 5,
    parameter int COUNT_2    = 1,
    parameter int GROUPS     = 1,
    parameter int BEATS      = 2,
    parameter int LINES      = 4,
    parameter logic [WIDTH-1:0] FILL = '0
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
  localparam int Line = SIZE_1 * SIZE_2 * GROUPS * BEATS;
  localparam int Ring = LINES * Line;
  localparam int AddressBits = Ring > 1 ? $clog2(Ring) : 1;
  localparam int LineBits = $clog2(LINES + 1);

  // Which slices a row of windows needs, and how many are done with after it.
  function automatic int clamped(input int line);
    return line < 0 ? 0 : line > SIZE_0 ? SIZE_0 : line;
  endfunction
  function automatic int first_of(input int row);
    return row == 0 ? 0 : row == COUNT_0 ? SIZE_0 : clamped(row * STRIDE_0 - BEFORE_0);
  endfunction
  function automatic int freed_by(input int row);
    return first_of(row + 1) - first_of(row);
  endfunction
  function automatic int needed_by(input int row);
    int seen;
    seen = clamped(row * STRIDE_0 - BEFORE_0 + (KERNEL_0 - 1) * DILATION_0 + 1) - first_of(row);
    return seen > freed_by(row) ? seen : freed_by(row);
  endfunction
  typedef logic [COUNT_0-1:0][LineBits-1:0] table_t;
  function automatic table_t tabled(input bit freed);
    for (int row = 0; row < COUNT_0; row++) tabled[row] = LineBits'(freed ? freed_by(row) : needed_by(row));
  endfunction
  localparam table_t Freed = tabled(1'b1);
  localparam table_t Needed = tabled(1'b0);

  // The nested loops, from the outermost: rows of windows, windows along axes 1 and 2, groups, the kernel, beats.
  localparam int Loops = 8;
  typedef int loops_t[Loops];
  localparam loops_t Counts = '{COUNT_0, COUNT_1, COUNT_2, GROUPS, KERNEL_0, KERNEL_1, KERNEL_2, BEATS};
  localparam int Place = GROUPS * BEATS;
  localparam loops_t Strides = '{
      STRIDE_0 * Line, STRIDE_1 * SIZE_2 * Place, STRIDE_2 * Place, BEATS,
      DILATION_0 * Line, DILATION_1 * SIZE_2 * Place, DILATION_2 * Place, 1
  };

  function automatic int modulo(input int a);
    return ((a % Ring) + Ring) % Ring;
  endfunction
  // What the address grows by when this loop goes on and those within it begin again; loop -1 is the next sample.
  function automatic int delta(input int loop);
    delta = loop < 0 ? SIZE_0 * Line : Strides[loop];
    for (int i = loop + 1; i < Loops; i++) delta -= (Counts[i] - 1) * Strides[i];
    delta = modulo(delta);
  endfunction
  localparam int Start = modulo(-((BEFORE_0 * SIZE_1 + BEFORE_1) * SIZE_2 + BEFORE_2) * Place);

  logic step, go, row_ends;
  logic [Loops:0] ends;  // bit i: loop i and all within it are at their last turn
  logic [AddressBits-1:0] address;
  logic [AddressBits:0] further;

  assign ends[Loops] = 1'b1;
  for (genvar i = 0; i < Loops; i++) begin : g_loop
    localparam int Bits = Counts[i] > 1 ? $clog2(Counts[i]) : 1;
    logic [Bits-1:0] turn;
    logic last;
    assign last    = turn == Bits'(Counts[i] - 1);
    assign ends[i] = ends[i+1] && last;
    always_ff @(posedge clk) begin
      if (rst) turn <= '0;
      else if (go && ends[i+1]) turn <= last ? '0 : turn + 1'b1;
    end
  end
  assign row_ends = go && ends[1];

  always_comb begin
    further = (AddressBits + 1)'(delta(-1));
    for (int i = 0; i < Loops; i++) if (!ends[i] && ends[i+1]) further = (AddressBits + 1)'(delta(i));
    further = further + {1'b0, address};
  end
  always_ff @(posedge clk) begin
    if (rst) address <= AddressBits'(Start);
    else if (go) address <= AddressBits'(further >= (AddressBits + 1)'(Ring) ? further - (AddressBits + 1)'(Ring) : further);
  end

  // The ring of slices.
  (* no_rw_check *)  // a slice is read after it is written
  logic [WIDTH-1:0] memory[Ring];
  logic [AddressBits-1:0] write_address;
  logic [LineBits-1:0] stored, freed, needed;
  localparam int LinePlaceBits = Line > 1 ? $clog2(Line) : 1;
  logic [LinePlaceBits-1:0] line_place;
  logic put, line_ends;
  assign in_ready  = stored != LineBits'(LINES);
  assign put       = in_valid && in_ready;
  assign line_ends = put && line_place == LinePlaceBits'(Line - 1);
  assign freed     = Freed[g_loop[0].turn];
  assign needed    = Needed[g_loop[0].turn];
  always_ff @(posedge clk) begin
    if (put) memory[write_address] <= in_data;
    if (rst) begin
      write_address <= '0;
      line_place    <= '0;
      stored        <= '0;
    end else begin
      if (put) begin
        write_address <= write_address == AddressBits'(Ring - 1) ? '0 : write_address + 1'b1;
        line_place    <= line_ends ? '0 : line_place + 1'b1;
      end
      stored <= stored + LineBits'(line_ends) - (row_ends ? freed : '0);
    end
  end

  // Places outside of the input, by axis.
  logic outside;
  logic [2:0] beyond;
  assign outside = |beyond;
  for (genvar i = 0; i < 3; i++) begin : g_axis
    localparam int Size = i == 0 ? SIZE_0 : i == 1 ? SIZE_1 : SIZE_2;
    localparam int Before = i == 0 ? BEFORE_0 : i == 1 ? BEFORE_1 : BEFORE_2;
    localparam int Stride = i == 0 ? STRIDE_0 : i == 1 ? STRIDE_1 : STRIDE_2;
    localparam int Dilation = i == 0 ? DILATION_0 : i == 1 ? DILATION_1 : DILATION_2;
    localparam int Furthest = (Counts[i] - 1) * Stride + (Counts[i+4] - 1) * Dilation - Before;
    if (Before > 0 || Furthest >= Size) begin : g_padded
      localparam int Bits = $clog2((Furthest > Size ? Furthest : Size) + Before + 1) + 1;
      logic signed [Bits-1:0] origin, offset, place;
      assign place     = origin + offset;
      assign beyond[i] = place < 0 || place >= $signed(Bits'(Size));
      always_ff @(posedge clk) begin
        if (rst) begin
          origin <= -$signed(Bits'(Before));
          offset <= '0;
        end else if (go) begin
          if (ends[i+1]) origin <= g_loop[i].last ? -$signed(Bits'(Before)) : origin + $signed(Bits'(Stride));
          if (ends[i+5]) offset <= g_loop[i+4].last ? '0 : offset + $signed(Bits'(Dilation));
        end
      end
    end else begin : g_inside
      assign beyond[i] = 1'b0;
    end
  end

  logic [WIDTH-1:0] found, read;
  logic [1:0] valid, filled;
  assign step      = !out_valid || out_ready;
  assign go        = step && stored >= needed;
  assign out_valid = valid[1];
  assign out_data  = filled[1] ? FILL : read;
  always_ff @(posedge clk) begin
    if (rst) valid <= '0;
    else if (step) valid <= {valid[0], go};
    if (step) begin
      found  <= memory[address];
      read   <= found;
      filled <= {filled[0], outside};
    end
  end
endmodule
