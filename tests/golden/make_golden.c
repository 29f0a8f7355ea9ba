// SPDX-License-Identifier: MIT
// Makes the golden images of this format version: make_golden DIRECTORY. The images of a version
// that has been released are never made anew; a new version adds its own.
#include <stdio.h>

#include "store/store_format.h"
#include "tests/lib/golden.h"

static int save(const char *dir, const char *kind, bool dirty)
{
    struct engine_recovery recovery;
    struct buf out;
    struct canon list;
    char path[512];
    struct sim *sim = golden_build(dirty, 0);

    buf_init(&out);
    golden_pack(sim, &out);
    snprintf(path, sizeof(path), "%s/v%u-%s.image", dir, FORMAT_VERSION, kind);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(out.bytes, 1, out.len, f) != out.len || fclose(f) != 0 ||
        golden_list(sim, &list, &recovery) < 0)
        return 1;
    snprintf(path, sizeof(path), "%s/v%u-%s.list", dir, FORMAT_VERSION, kind);
    f = fopen(path, "w");
    if (!f)
        return 1;
    for (size_t i = 0; i < list.count; i++)
        fprintf(f, "%s\n", list.lines[i]);
    printf("%s: %zu bytes, %zu lines; %s\n", kind, out.len, list.count, recovery.text);
    buf_free(&out);
    canon_free(&list);
    sim_destroy(sim);
    return fclose(f) != 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_golden DIRECTORY\n");
        return 2;
    }
    return save(argv[1], "clean", false) || save(argv[1], "dirty", true);
}
