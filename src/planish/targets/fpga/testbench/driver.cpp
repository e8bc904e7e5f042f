// Feeds a design many samples, as fast as it takes them or with random pauses at every port, and keeps what comes out.
//
// Compiled together with the model that Verilator makes of top.sv, and with ports.h, which lists the design's streams:
//   INPUTS(STREAM), OUTPUTS(STREAM): STREAM(name, 32-bit words in a beat, beats in a sample) for each
//
// driver FOLDER SAMPLES STALL SEED PATIENCE PACE: reads FOLDER/<input>.in, writes FOLDER/<output>.out (beats one after the
// other, of little-endian words) and FOLDER/times.out: for each sample the cycles of its first beat in, its first beat
// out and its last beat out. A port pauses in STALL of 100 cycles; inputs bring a sample in PACE cycles, evenly, at the
// fastest. Exit status 3: nothing moved for PATIENCE cycles; 4: an output broke the protocol; the message says which
// and how.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "ports.h"

using Words = std::vector<uint32_t>;

struct Random {  // xorshift64*
    uint64_t state;
    bool chance(unsigned percent) {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return (state * 0x2545F4914F6CDD1DULL >> 33) % 100 < percent;
    }
};

template <class Port>
void put(Port& port, const uint32_t* words, size_t count) {
    if constexpr (std::is_integral_v<Port>) {
        port = Port(count > 1 ? words[0] | uint64_t(words[1]) << 32 : words[0]);
    } else {
        for (size_t i = 0; i < count; ++i) port[i] = words[i];
    }
}

template <class Port>
void get(const Port& port, uint32_t* words, size_t count) {
    if constexpr (std::is_integral_v<Port>) {
        for (size_t i = 0; i < count; ++i) words[i] = uint32_t(uint64_t(port) >> 32 * i);
    } else {
        for (size_t i = 0; i < count; ++i) words[i] = port[i];
    }
}

struct Input {
    std::string name;
    size_t words, beats, total;
    std::function<void(bool)> offer;
    std::function<void(const uint32_t*)> show;
    std::function<bool()> ready;
    Words data{};
    size_t done = 0;
    bool active = false;
};

struct Output {
    std::string name;
    size_t words, beats, total;
    std::function<void(bool)> accept;
    std::function<void(uint32_t*)> look;
    std::function<bool()> valid;
    Words data = Words(words * total), now = Words(words), held = Words(words);
    size_t done = 0;
    bool active = false, valid_if_not = false, promised = false;
};

struct Times {
    uint64_t first_in = UINT64_MAX, first_out = UINT64_MAX, last_out = 0;
};

static Words read(const std::string& path, size_t count) {
    Words words(count);
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(words.data()), std::streamsize(count * sizeof(uint32_t)));
    if (!file) std::fprintf(stderr, "cannot read %s\n", path.c_str()), std::exit(2);
    return words;
}

template <class T>
static void write(const std::string& path, const std::vector<T>& items) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(items.data()), std::streamsize(items.size() * sizeof(T)));
    if (!file) std::fprintf(stderr, "cannot write %s\n", path.c_str()), std::exit(2);
}

int main(int argc, char** argv) {
    if (argc != 7) return std::fprintf(stderr, "driver FOLDER SAMPLES STALL SEED PATIENCE PACE\n"), 2;
    const std::string folder = std::string(argv[1]) + "/";
    const size_t samples = std::strtoull(argv[2], nullptr, 10);
    const unsigned stall = unsigned(std::atoi(argv[3]));
    const uint64_t seed = std::strtoull(argv[4], nullptr, 10), patience = std::strtoull(argv[5], nullptr, 10);
    const uint64_t pace = std::strtoull(argv[6], nullptr, 10);
    Random random{seed * 2 + 1};

    VerilatedContext context;
    context.randReset(2);  // registers wake up with anything in them
    context.randSeed(int(seed % 2147483646) + 1);
#ifdef WAVES
    context.traceEverOn(true);
#endif
    Vtop top{&context};

    std::vector<Input> inputs;
    std::vector<Output> outputs;
#define INPUT(name, words, beats)                                                                            \
    inputs.push_back({#name, words, beats, beats * samples, [&](bool on) { top.name##_valid = on; },         \
                      [&](const uint32_t* from) { put(top.name##_data, from, words); },                      \
                      [&] { return bool(top.name##_ready); }, read(folder + #name ".in", words * beats * samples)});
#define OUTPUT(name, words, beats)                                                                           \
    outputs.push_back({#name, words, beats, beats * samples, [&](bool on) { top.name##_ready = on; },        \
                       [&](uint32_t* to) { get(top.name##_data, to, words); },                               \
                       [&] { return bool(top.name##_valid); }});
    INPUTS(INPUT)
    OUTPUTS(OUTPUT)

    std::vector<Times> times(samples);
    uint64_t cycle = 0, moved = 0;
#ifdef WAVES
    uint64_t time = 0;
    VerilatedVcdC waves;
    top.trace(&waves, 99);
    waves.open((folder + "waves.vcd").c_str());
#endif
    auto eval = [&](bool clock) {
        top.clk = clock;
        top.eval();
#ifdef WAVES
        waves.dump(time++);
#endif
    };
    auto finish = [&](int status) {
        top.final();
#ifdef WAVES
        waves.close();
#endif
        std::printf("cycles %llu\n", static_cast<unsigned long long>(cycle));
        std::fflush(stdout);
        std::_Exit(status);
    };
    auto broken = [&](const Output& out, const char* how) {
        std::fprintf(stderr, "cycle %llu: %s %s\n", static_cast<unsigned long long>(cycle), out.name.c_str(), how);
        finish(4);
    };

    for (auto& in : inputs) in.offer(false);
    for (auto& out : outputs) out.accept(false);
    top.rst = 1;
    for (bool clock : {false, true, false, true, false}) eval(clock);
    top.rst = 0;

    while (!std::all_of(outputs.begin(), outputs.end(), [](const Output& out) { return out.done == out.total; })) {
        for (auto& in : inputs) {
            in.active |= in.done < in.total && cycle * in.beats >= in.done * pace && !random.chance(stall);
            in.offer(in.active);
            if (in.active) in.show(&in.data[in.done * in.words]);
        }
        for (auto& out : outputs) out.active = out.done < out.total && !random.chance(stall);
        if (stall) {
            for (auto& out : outputs) out.accept(!out.active);
            top.eval();
            for (auto& out : outputs) out.valid_if_not = out.valid();
        }
        for (auto& out : outputs) out.accept(out.active);
        eval(false);

        for (auto& in : inputs) {
            if (!in.active || !in.ready()) continue;
            if (in.done % in.beats == 0) {
                auto& first = times[in.done / in.beats].first_in;
                first = std::min(first, cycle);
            }
            in.active = false, ++in.done, moved = cycle;
        }
        for (auto& out : outputs) {
            const bool valid = out.valid();
            out.look(out.now.data());
            if (stall && valid != out.valid_if_not) broken(out, "offers a beat depending on whether it is taken");
            if (out.promised && !valid) broken(out, "takes back a beat that it has offered");
            if (out.promised && out.now != out.held) broken(out, "changes a beat before it is taken");
            out.promised = valid && !out.active;
            out.held = out.now;
            if (!valid || !out.active) continue;
            auto& sample = times[out.done / out.beats];
            if (out.done % out.beats == 0) sample.first_out = std::min(sample.first_out, cycle);
            sample.last_out = std::max(sample.last_out, cycle);
            std::copy(out.now.begin(), out.now.end(), out.data.begin() + long(out.done * out.words));
            ++out.done, moved = cycle;
        }
        eval(true);
        if (++cycle - moved > patience + pace) {
            std::fprintf(stderr, "nothing moved for %llu cycles;", static_cast<unsigned long long>(patience));
            for (auto& in : inputs) std::fprintf(stderr, " %s: %zu of %zu beats in;", in.name.c_str(), in.done, in.total);
            for (auto& out : outputs)
                std::fprintf(stderr, " %s: %zu of %zu beats out;", out.name.c_str(), out.done, out.total);
            std::fprintf(stderr, "\n");
            finish(3);
        }
    }
    write(folder + "times.out", times);
    for (auto& out : outputs) write(folder + out.name + ".out", out.data);
    finish(0);
}
