// SPDX-License-Identifier: MIT
// Tests of the ground floor: writer and reader, error codes, checksums, list, locks, messages.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "base/le.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/message.h"

// ---- buf, reader ----

static void test_reader_returns_what_was_put(void **state)
{
    struct buf b;
    struct reader r;

    (void)state;
    buf_init(&b);
    buf_put_u8(&b, 0x12);
    buf_put_u16(&b, 0x3456);
    buf_put_u32(&b, 0x789abcde);
    buf_put_u64(&b, UINT64_C(0x0123456789abcdef));
    buf_put(&b, "name", 4);
    buf_put(&b, NULL, 0);
    assert_false(b.failed);
    assert_int_equal(b.len, 19);
    // Little-endian, whatever the machine.
    assert_int_equal(b.bytes[1], 0x56);
    assert_int_equal(b.bytes[7], 0xef);

    reader_init(&r, b.bytes, b.len);
    assert_int_equal(reader_u8(&r), 0x12);
    assert_int_equal(reader_u16(&r), 0x3456);
    assert_int_equal(reader_u32(&r), 0x789abcde);
    assert_true(reader_u64(&r) == UINT64_C(0x0123456789abcdef));
    assert_int_equal(reader_left(&r), 4);
    assert_memory_equal(reader_take(&r, 4), "name", 4);
    assert_int_equal(reader_left(&r), 0);
    assert_false(r.failed);
    buf_free(&b);
}

static void test_reader_stays_failed_after_the_end(void **state)
{
    const uint8_t bytes[3] = {1, 2, 3};
    struct reader r;

    (void)state;
    reader_init(&r, bytes, sizeof(bytes));
    assert_int_equal(reader_u32(&r), 0);
    assert_true(r.failed);
    // A field that would fit must not be taken for the one that is missing.
    assert_int_equal(reader_u8(&r), 0);
    assert_null(reader_take(&r, 0));
    assert_int_equal(reader_left(&r), 0);

    reader_init(&r, bytes, sizeof(bytes));
    assert_non_null(reader_take(&r, 1));
    assert_null(reader_take(&r, SIZE_MAX));
    assert_true(r.failed);
}

static void test_buf_grows_and_keeps_its_bytes(void **state)
{
    struct buf b = {0};

    (void)state;
    for (uint32_t i = 0; i < 10000; i++)
        buf_put_u32(&b, i);
    assert_int_equal(b.len, 40000);
    for (uint32_t i = 0; i < 10000; i++) {
        le32 v;

        memcpy(&v, b.bytes + i * 4, 4);
        assert_int_equal(le32_get(v), i);
    }
    buf_reset(&b);
    assert_int_equal(b.len, 0);
    assert_non_null(buf_extend(&b, 0));
    buf_free(&b);
    buf_free(&b);
    assert_null(b.bytes);
}

static void test_buf_fails_once_and_for_all(void **state)
{
    struct buf b = {0};

    (void)state;
    buf_put_u8(&b, 1);
    assert_null(buf_extend(&b, SIZE_MAX));
    assert_true(b.failed);
    buf_put_u8(&b, 2);
    assert_int_equal(b.len, 1);
    buf_free(&b);
    assert_false(b.failed);
}

static void test_buf_printf_appends_text(void **state)
{
    struct buf b = {0};

    (void)state;
    buf_printf(&b, "%s=%d", "answer", 42);
    buf_printf(&b, ";");
    assert_int_equal(b.len, 10);
    assert_string_equal((const char *)b.bytes, "answer=42;");
    for (int i = 0; i < 100; i++)
        buf_printf(&b, "%064d", i);
    assert_int_equal(b.len, 10 + 6400);
    assert_false(b.failed);
    buf_free(&b);
}

// ---- err ----

static void test_err_names_and_maps_every_code(void **state)
{
    (void)state;
#define X(name, err, text)                       \
    assert_string_equal(err_name(-name), #name); \
    assert_string_equal(err_text(-name), text);  \
    assert_int_equal(err_to_errno(-name), err);  \
    assert_int_equal(err_to_errno(name), err);
    AF_ERRORS(X)
#undef X
}

static void test_err_passes_errno_through(void **state)
{
    (void)state;
    assert_int_equal(err_to_errno(0), 0);
    assert_int_equal(err_to_errno(-ENOSPC), ENOSPC);
    assert_string_equal(err_name(-ENOSPC), "ENOSPC");
    assert_string_equal(err_text(-ENOENT), "No such file or directory");
    assert_string_equal(err_name(0), "OK");
    assert_false(err_is_corruption(-EIO));
}

static void test_err_never_calls_an_unknown_code_success(void **state)
{
    const int codes[] = {-AF_E_END, -AF_E_BEFORE_FIRST, -99999, 4000, INT32_MIN + 1};

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(codes); i++) {
        assert_true(err_to_errno(codes[i]) > 0);
        assert_non_null(err_name(codes[i]));
        assert_non_null(err_text(codes[i]));
        assert_false(err_is_corruption(codes[i]));
    }
}

static void test_err_tells_corruption_from_refusal(void **state)
{
    (void)state;
    assert_true(err_is_corruption(-AF_E_BLOCK_CHECKSUM));
    assert_true(err_is_corruption(-AF_E_LOG_DAMAGED));
    assert_true(err_is_corruption(AF_E_SB_STALE));
    assert_false(err_is_corruption(-AF_E_STORE_LOCKED));
    assert_false(err_is_corruption(-AF_E_LOG_FAILED));
    assert_false(err_is_corruption(0));
}

// ---- checksum ----

static void test_checksum_is_stable(void **state)
{
    (void)state;
    // The format depends on these for ever (docs/FORMAT.md, "Checksums").
    assert_true(checksum(CSUM_NODE, 0, "", 0) == UINT64_C(0x19cb85026b70655b));
    assert_true(checksum(CSUM_NODE, 0, "aerofs", 6) == UINT64_C(0xc9d1674a3da6424f));
    assert_true(checksum(CSUM_RECORD, 7, "aerofs", 6) == UINT64_C(0xff6ebc947f58118e));
}

static void test_checksum_depends_on_kind_and_salt(void **state)
{
    const char text[] = "the same bytes";

    (void)state;
    assert_true(checksum(CSUM_NODE, 0, text, sizeof(text)) !=
                checksum(CSUM_DATA, 0, text, sizeof(text)));
    assert_true(checksum(CSUM_RECORD, 1, text, sizeof(text)) !=
                checksum(CSUM_RECORD, 2, text, sizeof(text)));
    assert_true(checksum(CSUM_NODE, 0, "", 0) != 0);
}

static void test_checksum2_equals_concatenation(void **state)
{
    static const size_t lens[] = {0, 1, 3, 16, 17, 128, 129, 240, 241, 255, 256, 1024, 4096, 70000};
    size_t max = 140000;
    uint8_t *bytes = malloc(max);

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < max; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251);
    for (size_t a = 0; a < AF_ARRAY_LEN(lens); a++) {
        for (size_t b = 0; b < AF_ARRAY_LEN(lens); b++) {
            uint64_t whole = checksum(CSUM_RECORD, 99, bytes, lens[a] + lens[b]);

            assert_true(checksum2(CSUM_RECORD, 99, lens[a] ? bytes : NULL, lens[a], bytes + lens[a],
                                  lens[b]) == whole);
        }
    }
    free(bytes);
}

// ---- list ----

struct item {
    int value;
    struct list link;
};

static int list_digits(struct list *l)
{
    int digits = 0;

    list_for_each (pos, l)
        digits = digits * 10 + list_entry(pos, struct item, link)->value;
    return digits;
}

static void test_list_keeps_order(void **state)
{
    struct item items[5] = {{.value = 1}, {.value = 2}, {.value = 3}, {.value = 4}, {.value = 5}};
    struct list a, b;

    (void)state;
    list_init(&a);
    list_init(&b);
    assert_true(list_empty(&a));
    list_append(&a, &items[1].link);
    list_append(&a, &items[2].link);
    list_prepend(&a, &items[0].link);
    list_append(&b, &items[3].link);
    list_append(&b, &items[4].link);
    list_splice(&a, &b);
    assert_true(list_empty(&b));
    assert_int_equal(list_digits(&a), 12345);
    list_splice(&a, &b);
    assert_int_equal(list_digits(&a), 12345);
    list_for_each_safe (pos, &a) {
        if (list_entry(pos, struct item, link)->value % 2 == 0)
            list_remove(pos);
    }
    assert_int_equal(list_digits(&a), 135);
    list_remove(&items[1].link);
    assert_int_equal(list_digits(&a), 135);
}

// ---- lock ----

static void test_lock_knows_its_owner(void **state)
{
    struct af_mutex m;

    (void)state;
    af_mutex_init(&m, LOCK_RANK_STORE);
    assert_false(af_is_locked(&m));
    af_lock(&m);
    assert_true(af_is_locked(&m));
    af_unlock(&m);
    assert_false(af_is_locked(&m));
    af_mutex_destroy(&m);
}

static void test_locks_are_released_in_any_order(void **state)
{
    struct af_mutex a, b, c;

    (void)state;
    af_mutex_init(&a, LOCK_RANK_CKPT);
    af_mutex_init(&b, LOCK_RANK_STORE);
    af_mutex_init(&c, LOCK_RANK_WAL);
    af_lock(&a);
    af_lock(&b);
    af_lock(&c);
    af_unlock(&b);
    af_unlock(&c);
    af_lock(&b);
    af_unlock(&a);
    af_unlock(&b);
    af_mutex_destroy(&a);
    af_mutex_destroy(&b);
    af_mutex_destroy(&c);
}

struct counter {
    struct af_mutex lock;
    struct af_cond changed;
    int value, threads_done;
};

static void *count_up(void *arg)
{
    struct counter *c = arg;

    for (int i = 0; i < 2000; i++) {
        // Asked without the lock, as assertions in other threads do.
        AF_ASSERT(!af_is_locked(&c->lock));
        af_lock(&c->lock);
        AF_ASSERT(af_is_locked(&c->lock));
        c->value++;
        af_unlock(&c->lock);
    }
    af_lock(&c->lock);
    c->threads_done++;
    af_cond_broadcast(&c->changed);
    af_unlock(&c->lock);
    return NULL;
}

static void test_lock_and_cond_between_threads(void **state)
{
    struct counter c = {.value = 0};
    pthread_t threads[3];

    (void)state;
    af_mutex_init(&c.lock, LOCK_RANK_WAL);
    af_cond_init(&c.changed);
    for (size_t i = 0; i < AF_ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &c), 0);
    af_lock(&c.lock);
    while (c.threads_done < 3)
        af_cond_wait(&c.changed, &c.lock);
    assert_true(af_is_locked(&c.lock));
    assert_int_equal(c.value, 6000);
    af_unlock(&c.lock);
    for (size_t i = 0; i < AF_ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    af_cond_destroy(&c.changed);
    af_mutex_destroy(&c.lock);
}

static void test_cond_wait_ms_times_out(void **state)
{
    struct af_mutex m;
    struct af_cond c;

    (void)state;
    af_mutex_init(&m, LOCK_RANK_WAL);
    af_cond_init(&c);
    af_lock(&m);
    assert_false(af_cond_wait_ms(&c, &m, 0));
    assert_false(af_cond_wait_ms(&c, &m, 15));
    assert_true(af_is_locked(&m));
    af_unlock(&m);
    af_cond_destroy(&c);
    af_mutex_destroy(&m);
}

// Runs a misuse in a process of its own and says whether it was ended for it.
static bool aborts(void (*misuse)(void))
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(STDERR_FILENO); // The message is expected.
        (void)signal(SIGABRT, SIG_DFL);
        misuse();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void lock_twice(void)
{
    struct af_mutex m;

    af_mutex_init(&m, LOCK_RANK_WAL);
    af_lock(&m);
    af_lock(&m);
}

static void unlock_unowned(void)
{
    struct af_mutex m;

    af_mutex_init(&m, LOCK_RANK_WAL);
    af_unlock(&m);
}

static void destroy_held(void)
{
    struct af_mutex m;

    af_mutex_init(&m, LOCK_RANK_WAL);
    af_lock(&m);
    af_mutex_destroy(&m);
}

#if !defined(NDEBUG) || defined(AF_DEBUG)
static void lock_out_of_order(void)
{
    struct af_mutex a, b;

    af_mutex_init(&a, LOCK_RANK_WAL);
    af_mutex_init(&b, LOCK_RANK_STORE);
    af_lock(&a);
    af_lock(&b);
}

static void wait_under_a_higher_lock(void)
{
    struct af_mutex a, b;
    struct af_cond c;

    af_mutex_init(&a, LOCK_RANK_STORE);
    af_mutex_init(&b, LOCK_RANK_WAL);
    af_cond_init(&c);
    af_lock(&a);
    af_lock(&b);
    (void)af_cond_wait_ms(&c, &a, 1);
}
#endif

static void test_misuse_of_locks_aborts(void **state)
{
    (void)state;
    assert_true(aborts(lock_twice));
    assert_true(aborts(unlock_unowned));
    assert_true(aborts(destroy_held));
#if !defined(NDEBUG) || defined(AF_DEBUG)
    assert_true(aborts(lock_out_of_order));
    assert_true(aborts(wait_under_a_higher_lock));
#endif
}

// ---- message ----

static void take_message(void *arg, enum message_level level, const char *text)
{
    struct buf *b = arg;

    buf_printf(b, "%d:%s", (int)level, text);
}

static void test_message_reaches_the_sink_uncut(void **state)
{
    struct buf b = {0};
    struct message_sink sink = {.emit = take_message, .arg = &b};
    char longer[3000];

    (void)state;
    message(NULL, MESSAGE_ERROR, "to nobody");
    message(&(struct message_sink){0}, MESSAGE_ERROR, "to nobody");
    message(&sink, MESSAGE_WARNING, "block %d of %s", 7, "data");
    assert_string_equal((const char *)b.bytes, "1:block 7 of data");
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    buf_reset(&b);
    message(&sink, MESSAGE_ERROR, "%s!", longer);
    assert_int_equal(b.len, 2 + sizeof(longer));
    assert_int_equal(b.bytes[b.len - 1], '!');
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_returns_what_was_put),
        cmocka_unit_test(test_reader_stays_failed_after_the_end),
        cmocka_unit_test(test_buf_grows_and_keeps_its_bytes),
        cmocka_unit_test(test_buf_fails_once_and_for_all),
        cmocka_unit_test(test_buf_printf_appends_text),
        cmocka_unit_test(test_err_names_and_maps_every_code),
        cmocka_unit_test(test_err_passes_errno_through),
        cmocka_unit_test(test_err_never_calls_an_unknown_code_success),
        cmocka_unit_test(test_err_tells_corruption_from_refusal),
        cmocka_unit_test(test_checksum_is_stable),
        cmocka_unit_test(test_checksum_depends_on_kind_and_salt),
        cmocka_unit_test(test_checksum2_equals_concatenation),
        cmocka_unit_test(test_list_keeps_order),
        cmocka_unit_test(test_lock_knows_its_owner),
        cmocka_unit_test(test_locks_are_released_in_any_order),
        cmocka_unit_test(test_lock_and_cond_between_threads),
        cmocka_unit_test(test_cond_wait_ms_times_out),
        cmocka_unit_test(test_misuse_of_locks_aborts),
        cmocka_unit_test(test_message_reaches_the_sink_uncut),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
