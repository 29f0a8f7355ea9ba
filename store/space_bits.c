// SPDX-License-Identifier: MIT
// Bits of a group of blocks, a word of 64 at a time.
#include "store/space_internal.h"

// The bits [from, from + count) of one word; 1 <= count <= 64 - from.
static uint64_t word_mask(unsigned from, unsigned count)
{
    return (UINT64_MAX >> (64 - count)) << from;
}

unsigned bits_find(const uint64_t *words, unsigned from, unsigned to, bool value)
{
    if (from >= to)
        return to;
    uint64_t flip = value ? 0 : UINT64_MAX;
    unsigned at = from / 64;
    uint64_t word = (words[at] ^ flip) & (UINT64_MAX << (from % 64));
    while (word == 0) {
        if (++at * 64 >= to)
            return to;
        word = words[at] ^ flip;
    }
    unsigned found = at * 64 + (unsigned)__builtin_ctzll(word);
    return AF_MIN(found, to);
}

unsigned bits_find_run(const uint64_t *words, unsigned from, unsigned to, unsigned want,
                       unsigned *ret_len)
{
    unsigned best = from, best_len = 0;
    for (unsigned at = bits_find(words, from, to, false); at < to;) {
        unsigned end = bits_find(words, at, AF_MIN(to, at + want), true);
        if (end - at > best_len) {
            best = at;
            best_len = end - at;
            if (best_len >= want)
                break;
        }
        at = bits_find(words, end, to, false);
    }
    *ret_len = best_len;
    return best;
}

bool bits_all(const uint64_t *words, unsigned from, unsigned count, bool value)
{
    return bits_find(words, from, from + count, !value) == from + count;
}

void bits_fill(uint64_t *words, unsigned from, unsigned count, bool value)
{
    while (count > 0) {
        unsigned n = AF_MIN(count, 64 - from % 64);
        uint64_t mask = word_mask(from % 64, n);
        if (value)
            words[from / 64] |= mask;
        else
            words[from / 64] &= ~mask;
        from += n;
        count -= n;
    }
}

unsigned bits_count_zeros(const uint64_t *words)
{
    unsigned zeros = 0;
    for (unsigned i = 0; i < GROUP_WORDS; i++)
        zeros += (unsigned)__builtin_popcountll(~words[i]);
    return zeros;
}
