// SPDX-License-Identifier: MIT
// Seeded random numbers for tests, and numbers from the environment: a failing run is repeated by
// its seed.
#ifndef AF_TESTS_RNG_H
#define AF_TESTS_RNG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct rng {
    uint64_t state;
};

// SplitMix64.
static inline uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

// 0 … bound − 1; 0 for 0.
static inline uint64_t rng_below(struct rng *r, uint64_t bound)
{
    return bound ? rng_next(r) % bound : 0;
}

static inline bool rng_chance(struct rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

static inline uint64_t rng_mix(uint64_t a, uint64_t b)
{
    struct rng r = {a};

    r.state = rng_next(&r) ^ b;
    return rng_next(&r);
}

// A number from the environment: AEROFS_TEST_`name` (as `make check-crash` sets it), else `name`,
// else `otherwise`.
uint64_t env_number(const char *name, uint64_t otherwise);

#endif
