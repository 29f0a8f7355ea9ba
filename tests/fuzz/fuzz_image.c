// SPDX-License-Identifier: MIT
// A store with mutated bytes: opened, walked, changed, closed, verified. The first byte chooses the
// crashed image (bit 0) instead of the clean one; the rest is for mutate_image().
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/fuzz/mutate.h"
#include "tests/lib/golden.h"

static void change(struct fixture *fx)
{
    static const struct store_cred cred = {.uid = 1, .gid = 1};
    struct store_attr attr;
    struct store_file *file;
    int err;

    err = store_mknod(fx->store, STORE_BLOCK, INO_ROOT, "new", S_IFDIR | 0755, 0, &cred, &attr);
    if (err == 0)
        err = store_rename(fx->store, STORE_BLOCK, INO_ROOT, "linked", attr.ino, "moved", 0);
    err = store_create(fx->store, STORE_BLOCK, INO_ROOT, "file", 0644, O_RDWR, &cred, &attr, &file);
    if (err == 0) {
        err = store_write(fx->store, STORE_BLOCK, file, 100, "0123456789", 10, false);
        err = fixture_fsync(fx, attr.ino);
        err = store_release(fx->store, STORE_BLOCK, file);
    }
    err = store_unlink(fx->store, STORE_BLOCK, INO_ROOT, "sparse");
    if (store_lookup(fx->store, STORE_BLOCK, INO_ROOT, "replayed", &attr) == 0) {
        attr.size = 10;
        err = store_setattr(fx->store, STORE_BLOCK, attr.ino, NULL, &attr, STORE_SET_SIZE, &attr);
    }
    err = engine_checkpoint(fx->engine);
    (void)err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct engine_options options = {.cache_bytes = UINT64_C(1) << 20,
                                                  .log_bytes = UINT64_C(512) << 10};
    static struct sim *golden[2];
    char where[CANON_WHERE_BYTES], text[1024];
    struct canon list = {0};
    struct fixture fx;
    int err;

    for (unsigned i = 0; i < 2; i++)
        if (!golden[i])
            golden[i] = golden_build(i == 1);
    if (size == 0)
        return 0;
    fixture_adopt(&fx, sim_clone(golden[data[0] & 1]), &options);
    mutate_image(fx.sim, data + 1, size - 1);
    if (fixture_open(&fx) == 0) {
        err = canon_store(fx.store, &list, where);
        change(&fx);
        err = fixture_close(&fx);
        (void)err;
    }
    (void)!verify_text(fx.sim, text, sizeof(text));
    canon_free(&list);
    fixture_free(&fx);
    return 0;
}
