// A sum modulo 2**N in one carry chain: s = a + b + c, where inverters on the way in cost nothing.
//
// On ECP5 the chain is spelled out. A slice adds two bits; what feeds a chain its first carry is half a slice of its
// own, which here either takes a third bit of weight one or, with an even N, adds the lowest bits itself.
//
// Parameters   N             bits, at least 1
//              NOT_A, NOT_B  which bits of a and b are inverted
//              CARRY         0 or 1: c is this constant; 2: c comes from outside; 3: inverted
// Ports        a, b          N bits
//              c             1 bit
//              s             N bits
// Latency      0 cycles
// Interval     1 cycle
`ifdef ECP5
(* blackbox *)
module CCU2C #(
    parameter logic [15:0] INIT0 = 16'h0000,
    parameter logic [15:0] INIT1 = 16'h0000,
    parameter INJECT1_0 = "NO",
    parameter INJECT1_1 = "NO"
) (
    input  CIN, A0, B0, C0, D0, A1, B1, C1, D1,
    output S0, S1, COUT
);
endmodule
`endif

module carry_sum #(
    parameter int N = 4,
    parameter logic [N-1:0] NOT_A = '0,
    parameter logic [N-1:0] NOT_B = '0,
    parameter int CARRY = 0
) (
    input  logic [N-1:0] a,
    input  logic [N-1:0] b,
    input  logic         c,
    output logic [N-1:0] s
);
  logic first;  // the carry
  assign first = CARRY < 2 ? CARRY == 1 : c ^ (CARRY == 3);

`ifdef ECP5
  localparam bit CONSTANT = CARRY < 2;
  localparam bit MERGED = CONSTANT && N % 2 == 0;  // the first place adds the lowest bits and gives only their carry
  localparam int FIRST = MERGED ? 0 : 1;  // places before the lowest bit's
  localparam int PLACES = (N + FIRST + 1) / 2 * 2;

  if (N < 3) begin : g_small
    assign s = (a ^ NOT_A) + (b ^ NOT_B) + N'(first);
  end else begin : g_chain
    logic [PLACES-1:0] x, y, z;
    logic [PLACES/2-1:0] out;
    assign x = PLACES'({a, {FIRST{c}}});
    assign y = PLACES'({b, {FIRST{c}}});
    assign s = MERGED ? {z[N-1:1], a[0] ^ b[0] ^ NOT_A[0] ^ NOT_B[0] ^ (CARRY == 1)} : z[N+FIRST-1:FIRST];

    for (genvar k = 0; k < PLACES; k += 2) begin : g_slice
      // the table of a place: what it adds at C = D = 1 (high four bits), the carry that it makes (low four)
      localparam logic NA0 = k >= FIRST && k - FIRST < N ? NOT_A[k-FIRST] : 1'b0;
      localparam logic NB0 = k >= FIRST && k - FIRST < N ? NOT_B[k-FIRST] : 1'b0;
      localparam logic NA1 = k + 1 - FIRST < N ? NOT_A[k+1-FIRST] : 1'b0;
      localparam logic NB1 = k + 1 - FIRST < N ? NOT_B[k+1-FIRST] : 1'b0;
      localparam logic [3:0] A0 = NA0 ? 4'b0101 : 4'b1010, B0 = NB0 ? 4'b0011 : 4'b1100;
      localparam logic [3:0] A1 = NA1 ? 4'b0101 : 4'b1010, B1 = NB1 ? 4'b0011 : 4'b1100;
      localparam logic [3:0] FED = CONSTANT ? {4{CARRY == 1}} : CARRY == 3 ? 4'b0101 : 4'b1010;
      localparam logic [3:0] BEGIN = MERGED ? (CARRY == 1 ? A0 | B0 : A0 & B0) : FED;
      localparam logic [15:0] PLACE0 = k == 0 ? {12'h000, BEGIN} : {{3{A0 ^ B0}}, A0};
      localparam logic [15:0] PLACE1 = {{3{A1 ^ B1}}, A1};
      CCU2C #(.INIT0(PLACE0), .INIT1(PLACE1), .INJECT1_0("NO"), .INJECT1_1("NO")) slice (
          .CIN(k == 0 ? 1'b0 : out[(k == 0 ? 0 : k / 2 - 1)]),
          .A0(x[k]), .B0(y[k]), .C0(1'b1), .D0(1'b1), .A1(x[k+1]), .B1(y[k+1]), .C1(1'b1), .D1(1'b1),
          .S0(z[k]), .S1(z[k+1]), .COUT(out[k/2])
      );
    end
  end
`else
  assign s = (a ^ NOT_A) + (b ^ NOT_B) + N'(first);
`endif
endmodule
