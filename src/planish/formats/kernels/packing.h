// Codes of any width as bytes: used where codes are made, so that they need not be stored one by one.
#pragma once
#include <cstdint>

// n codes of `size` bytes each; bytes with fewer than 8 bits go eight at a time, any other width code by code.
void pack_some(const void* codes, int32_t size, int64_t n, int32_t bits, uint8_t* out);
