// SPDX-License-Identifier: MIT
// Parallel writers that journal what they do outside of the mount, and the check of what a crash
// has left.
//
//   writers run DIRECTORY JOURNALS PROCESSES SEED MIX    until the mount dies, or SIGTERM
//   writers verify DIRECTORY JOURNALS PROCESSES SEED
//
// Each process has its own keys (in a directory of its own, or a shared one) and changes them one
// operation after the other. Before an operation its line goes into the process's journal, with a
// sequence number from which its bytes follow; after an acknowledgement a line with the last number
// that it covers. The check replays the journal in a model. By the contract (C1 to C3) a crash
// leaves a prefix of each process's operations that includes all acknowledged ones: there must be
// one point in the journal, not before the last acknowledgement, at which *all* keys of the process
// are byte for byte what the model says. Then the journal is cut there, and the next run goes on
// with the same keys.
//
// MIX: `all`, or `close` (files written and closed, never synced themselves, with a sync of the
// directory now and then).

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS      24
#define SIZE_MAX_ 6000000u

enum kind {
    WRITE,    // open with truncation, write in pieces, close
    SYNCED,   // the same, with fsync before the close
    APPEND,   // open for appending, write, close
    PATCH,    // write somewhere inside, without truncation
    TRUNCATE, // by path
    RENAME,   // over `other`
    LINK,     // as `other`, when that is free
    UNLINK,
    MKDIR, // a key that is a directory
    RMDIR,
    CHMOD,
    SYNC_DIR, // of the directory: acknowledges all
    KINDS
};

struct op {
    uint64_t seq;
    enum kind kind;
    int key, other;
    uint64_t at;   // PATCH: offset; TRUNCATE: new size
    uint64_t size; // of what is written; CHMOD: mode
};

struct process {
    int number;
    uint64_t seed;
    char directory[2048];
    bool shared;
    char journal_path[2048];
    int journal;
    struct op *ops; // what the journal says, in order
    size_t op_count;
    uint64_t acknowledged; // all up to here
    uint64_t next;
};

static void die(const char *what, const char *name)
{
    fprintf(stderr, "writers: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

// The bytes that operation `seq` of a process writes: no two operations write the same ones.
static void fill(uint8_t *bytes, size_t size, const struct process *p, uint64_t seq)
{
    uint64_t state = mix(p->seed ^ mix((uint64_t)p->number << 48 ^ seq));

    for (size_t i = 0; i < size; i += 8) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t word = mix(state);
        memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
    }
}

static void key_path(const struct process *p, int key, char path[4096])
{
    snprintf(path, 4096, "%s/p%d-k%02d", p->directory, p->number, key);
}

// ---- the model ----

struct file { // what a key names
    int names;
    bool directory;
    unsigned mode;
    uint8_t *bytes;
    size_t size;
};

struct model {
    struct file *keys[KEYS]; // NULL: absent
};

static struct file *file_new(bool directory)
{
    struct file *f = calloc(1, sizeof(*f));

    if (!f)
        die("calloc", "");
    f->names = 1;
    f->directory = directory;
    f->mode = directory ? 0755 : 0644;
    return f;
}

static void file_drop(struct file **at)
{
    struct file *f = *at;

    *at = NULL;
    if (f && --f->names == 0) {
        free(f->bytes);
        free(f);
    }
}

static void file_resize(struct file *f, size_t size)
{
    f->bytes = realloc(f->bytes, size + 8);
    if (!f->bytes)
        die("realloc", "");
    if (size > f->size)
        memset(f->bytes + f->size, 0, size - f->size);
    f->size = size;
}

static void model_write(struct model *m, const struct process *p, const struct op *op)
{
    struct file *f = m->keys[op->key];
    bool whole = op->kind == WRITE || op->kind == SYNCED;

    if (!f)
        f = m->keys[op->key] = file_new(false);
    uint64_t at = whole ? 0 : op->kind == APPEND ? f->size : op->at;
    if (whole)
        file_resize(f, 0);
    if (at + op->size > f->size)
        file_resize(f, at + op->size);
    fill(f->bytes + at, op->size, p, op->seq);
}

static void model_apply(struct model *m, const struct process *p, const struct op *op)
{
    struct file **key = &m->keys[op->key], **other = &m->keys[op->other];

    switch (op->kind) {
    case WRITE:
    case SYNCED:
    case APPEND:
    case PATCH:
        model_write(m, p, op);
        break;
    case TRUNCATE:
        file_resize(*key, op->at);
        break;
    case RENAME:
        if (*key == *other) // two names of one file: nothing happens
            break;
        file_drop(other);
        *other = *key;
        *key = NULL;
        break;
    case LINK:
        *other = *key;
        (*key)->names++;
        break;
    case UNLINK:
    case RMDIR:
        file_drop(key);
        break;
    case MKDIR:
        *key = file_new(true);
        break;
    case CHMOD:
        (*key)->mode = (unsigned)op->size;
        break;
    case SYNC_DIR:
    case KINDS:
    default:
        break;
    }
}

// ---- the journal ----

static void note_op(const struct process *p, const struct op *op)
{
    char line[160];
    int n = snprintf(line, sizeof(line), "T %llu %d %d %d %llu %llu\n", (unsigned long long)op->seq,
                     op->kind, op->key, op->other, (unsigned long long)op->at,
                     (unsigned long long)op->size);

    if (write(p->journal, line, (size_t)n) != n)
        die("journal", p->journal_path);
}

static void note_ack(struct process *p, uint64_t seq)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "A %llu\n", (unsigned long long)seq);

    if (write(p->journal, line, (size_t)n) != n)
        die("journal", p->journal_path);
    p->acknowledged = seq;
}

static void journal_open(struct process *p)
{
    p->journal = open(p->journal_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (p->journal < 0)
        die("open", p->journal_path);
}

static void add_op(struct process *p, const struct op *op)
{
    if ((p->op_count & (p->op_count + 1)) == 0) {
        p->ops = realloc(p->ops, 2 * (p->op_count + 1) * sizeof(*p->ops));
        if (!p->ops)
            die("realloc", "");
    }
    p->ops[p->op_count++] = *op;
}

static void journal_load(struct process *p)
{
    FILE *f = fopen(p->journal_path, "r");
    char line[200];

    p->next = 1;
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        unsigned long long seq, at, size;
        struct op op = {0};
        int kind;
        // A writer never dies in the middle of a line: the machine goes on.
        if (sscanf(line, "A %llu", &seq) == 1) {
            p->acknowledged = seq;
        } else if (sscanf(line, "T %llu %d %d %d %llu %llu", &seq, &kind, &op.key, &op.other, &at,
                          &size) == 6) {
            op.seq = seq, op.kind = (enum kind)kind, op.at = at, op.size = size;
            add_op(p, &op);
        } else if (sscanf(line, "N %llu", &seq) != 1) {
            fprintf(stderr, "writers: %s: cannot read: %s", p->journal_path, line);
            exit(1);
        }
        p->next = seq >= p->next ? seq + 1 : p->next;
    }
    fclose(f);
}

// What the crash has left is a fact from here on: later operations never were, and everything is
// durable.
static void journal_cut(struct process *p, uint64_t seq)
{
    char line[64];

    close(p->journal);
    if (unlink(p->journal_path))
        die("unlink", p->journal_path);
    journal_open(p);
    for (size_t i = 0; i < p->op_count && p->ops[i].seq <= seq; i++)
        note_op(p, &p->ops[i]);
    note_ack(p, seq);
    int n = snprintf(line, sizeof(line), "N %llu\n", (unsigned long long)p->next);
    if (write(p->journal, line, (size_t)n) != n)
        die("journal", p->journal_path);
}

// ---- doing it ----

static uint64_t rng_state;
static uint64_t rng(uint64_t below)
{
    rng_state++;
    return mix(rng_state) % below;
}

static volatile sig_atomic_t stop;
static void on_term(int signal)
{
    (void)signal;
    stop = 1;
}

static bool is_gone(const char *directory)
{
    struct statvfs sv;

    return statvfs(directory, &sv) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

// The mount is gone: the outcome of the last operation is unknown, and this process is done.
// Everything else is a failure. EIO comes too, when the daemon is killed while the kernel copies
// the request to it (fuse_dev_do_read()): then the mount is dead soon.
static void check(bool ok, const char *what, const struct process *p, const char *path)
{
    int err = errno;

    if (ok)
        return;
    if (err == ENOTCONN || err == ECONNABORTED)
        exit(0);
    for (int i = 0; err == EIO && i < 100; i++) {
        if (is_gone(p->directory))
            exit(0);
        poll(NULL, 0, 20);
    }
    errno = err;
    die(what, path);
}

static uint64_t random_size(void)
{
    uint64_t r = rng(100);

    return 1 + (r < 60 ? rng(4000) : r < 85 ? rng(70000) : r < 98 ? rng(700000) : rng(4000000));
}

// In pieces, as programs do: one WRITE is not what is atomic.
static void write_pieces(const struct process *p, const struct op *op, int fd, uint64_t at,
                         const char *path)
{
    uint8_t *bytes = malloc(op->size + 8);

    if (!bytes)
        die("malloc", "");
    fill(bytes, op->size, p, op->seq);
    uint64_t piece = rng(3) == 0 ? op->size : 1 + op->size / (1 + rng(4));
    for (uint64_t done = 0; done < op->size;) {
        uint64_t n = op->size - done < piece ? op->size - done : piece;
        ssize_t wrote = op->kind == APPEND ? write(fd, bytes + done, n)
                                           : pwrite(fd, bytes + done, n, (off_t)(at + done));
        check(wrote > 0, "write", p, path);
        done += (uint64_t)wrote;
    }
    free(bytes);
}

static void do_write(struct process *p, const struct op *op, const char *path)
{
    int flags = O_WRONLY | (op->kind == WRITE || op->kind == SYNCED ? O_CREAT | O_TRUNC : 0) |
                (op->kind == APPEND ? O_APPEND : 0);
    int fd = open(path, flags, 0644);

    check(fd >= 0, "open", p, path);
    write_pieces(p, op, fd, op->at, path);
    if (op->kind == SYNCED) {
        check(fsync(fd) == 0, "fsync", p, path);
        note_ack(p, op->seq);
    }
    check(close(fd) == 0, "close", p, path);
}

static void do_op(struct process *p, const struct op *op)
{
    char path[4096], other[4096];

    key_path(p, op->key, path);
    key_path(p, op->other, other);
    switch (op->kind) {
    case WRITE:
    case SYNCED:
    case APPEND:
    case PATCH:
        do_write(p, op, path);
        break;
    case TRUNCATE:
        check(truncate(path, (off_t)op->at) == 0, "truncate", p, path);
        break;
    case RENAME:
        check(rename(path, other) == 0, "rename", p, path);
        break;
    case LINK:
        check(link(path, other) == 0, "link", p, path);
        break;
    case UNLINK:
        check(unlink(path) == 0, "unlink", p, path);
        break;
    case MKDIR:
        check(mkdir(path, 0755) == 0, "mkdir", p, path);
        break;
    case RMDIR:
        check(rmdir(path) == 0, "rmdir", p, path);
        break;
    case CHMOD:
        check(chmod(path, (mode_t)op->size) == 0, "chmod", p, path);
        break;
    case SYNC_DIR: {
        int fd = open(p->directory, O_RDONLY | O_DIRECTORY);
        check(fd >= 0, "open", p, p->directory);
        check(fsync(fd) == 0, "fsync", p, p->directory);
        note_ack(p, op->seq);
        close(fd);
        break;
    }
    case KINDS:
    default:
        break;
    }
}

// An operation that the present state allows.
static struct op choose(const struct process *p, const struct model *m, bool close_only)
{
    static const enum kind all[] = {WRITE,  WRITE,  WRITE,  SYNCED, SYNCED,   SYNCED, SYNCED,
                                    APPEND, APPEND, PATCH,  PATCH,  TRUNCATE, RENAME, RENAME,
                                    LINK,   UNLINK, UNLINK, MKDIR,  RMDIR,    CHMOD,  SYNC_DIR};
    static const enum kind few[] = {WRITE,  WRITE, WRITE, WRITE,  WRITE,   WRITE,
                                    APPEND, MKDIR, RMDIR, UNLINK, SYNC_DIR};

    for (;;) {
        struct op op = {.seq = p->next, .key = (int)rng(KEYS), .other = (int)rng(KEYS)};
        const struct file *f = m->keys[op.key], *other = m->keys[op.other];
        bool plain = f && !f->directory;
        op.kind = close_only ? few[rng(sizeof(few) / sizeof(few[0]))]
                             : all[rng(sizeof(all) / sizeof(all[0]))];
        op.size = random_size();
        bool fits = true;
        switch (op.kind) {
        case WRITE:
        case SYNCED:
            fits = !f || plain;
            break;
        case APPEND:
            fits = plain && f->size + op.size <= SIZE_MAX_;
            break;
        case PATCH:
            op.at = plain ? rng(f->size + 1 + f->size / 4) : 0;
            fits = plain && op.at + op.size <= SIZE_MAX_;
            break;
        case TRUNCATE:
            op.at = plain ? rng(f->size + 1 + f->size / 4) : 0;
            fits = plain;
            break;
        case RENAME:
            fits = plain && op.key != op.other && (!other || !other->directory);
            break;
        case LINK:
            fits = plain && !other;
            break;
        case UNLINK:
            fits = plain;
            break;
        case MKDIR:
            fits = !f;
            break;
        case RMDIR:
            fits = f && f->directory;
            break;
        case CHMOD:
            op.size = 0600 + rng(0200);
            fits = plain;
            break;
        case SYNC_DIR:
        case KINDS:
        default:
            break;
        }
        if (fits)
            return op;
    }
}

static void process_init(struct process *p, int number, char **argv)
{
    *p = (struct process){
        .number = number, .seed = strtoull(argv[5], NULL, 10), .shared = number % 2};
    if (p->shared)
        snprintf(p->directory, sizeof(p->directory), "%s/shared", argv[2]);
    else
        snprintf(p->directory, sizeof(p->directory), "%s/d%d", argv[2], number);
    snprintf(p->journal_path, sizeof(p->journal_path), "%s/%d", argv[3], number);
    journal_load(p);
    journal_open(p);
}

static void run_process(struct process *p, bool close_only)
{
    struct model m = {0};

    rng_state = mix(p->seed ^ mix((uint64_t)p->number ^ p->next << 16));
    for (size_t i = 0; i < p->op_count; i++)
        model_apply(&m, p, &p->ops[i]);
    while (!stop) {
        struct op op = choose(p, &m, close_only);
        p->next++;
        note_op(p, &op);
        do_op(p, &op);
        model_apply(&m, p, &op);
    }
    exit(0);
}

static int run(int argc, char **argv)
{
    int count = (int)strtol(argv[4], NULL, 10), failed = 0, status;
    pid_t *pids = calloc((size_t)count, sizeof(*pids));
    bool close_only = argc > 6 && strcmp(argv[6], "close") == 0;

    if (!pids)
        die("calloc", "");
    struct sigaction action = {.sa_handler = on_term}; // interrupts wait()
    sigaction(SIGTERM, &action, NULL);
    for (int i = 0; i < count; i++) {
        struct process p;
        process_init(&p, i, argv);
        if (mkdir(p.directory, 0755) && errno != EEXIST)
            check(false, "mkdir", &p, p.directory);
        pids[i] = fork();
        if (pids[i] < 0)
            die("fork", "");
        if (pids[i] == 0)
            run_process(&p, close_only);
        close(p.journal);
        free(p.ops);
    }
    for (int i = 0; i < count; i++) {
        while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR)
            for (int k = i; stop && k < count; k++)
                kill(pids[k], SIGTERM);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    free(pids);
    return failed > 0;
}

// ---- looking ----

static void describe(const struct file *f, char *text, size_t size)
{
    if (!f)
        snprintf(text, size, "absent");
    else if (f->directory)
        snprintf(text, size, "a directory");
    else
        snprintf(text, size, "%zu bytes, mode %o, %d names", f->size, f->mode, f->names);
}

static struct file *read_key(const struct process *p, int key)
{
    char path[4096];
    struct stat st;

    key_path(p, key, path);
    if (lstat(path, &st)) {
        if (errno != ENOENT)
            die("stat", path);
        return NULL;
    }
    struct file *f = file_new(S_ISDIR(st.st_mode));
    f->names = f->directory ? 1 : (int)st.st_nlink;
    f->mode = st.st_mode & 07777;
    if (f->directory)
        return f;
    file_resize(f, (size_t)st.st_size);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die("open", path);
    for (size_t done = 0; done < f->size;) {
        ssize_t n = read(fd, f->bytes + done, f->size - done);
        if (n <= 0)
            die("read", path);
        done += (size_t)n;
    }
    uint8_t more;
    if (read(fd, &more, 1) != 0) {
        fprintf(stderr, "writers: %s is longer than its size\n", path);
        exit(1);
    }
    close(fd);
    return f;
}

static bool is_same(const struct file *a, const struct file *b)
{
    if (!a || !b)
        return a == b;
    return a->directory == b->directory && a->mode == b->mode && a->names == b->names &&
           a->size == b->size && (a->size == 0 || memcmp(a->bytes, b->bytes, a->size) == 0);
}

static void explain(const struct process *p, const struct model *m, struct file **found,
                    const char *when)
{
    char is[100], must[100];

    for (int k = 0; k < KEYS; k++) {
        const struct file *a = m->keys[k], *b = found[k];
        if (is_same(a, b))
            continue;
        describe(b, is, sizeof(is));
        describe(a, must, sizeof(must));
        size_t at = 0;
        while (a && b && at < a->size && at < b->size && a->bytes[at] == b->bytes[at])
            at++;
        fprintf(stderr, "  %s: key %d is %s, was to be %s, equal up to %zu\n", when, k, is, must,
                at);
    }
    (void)p;
}

// Looks for the latest point in the journal at which all keys are as they are found. 0: there is
// none.
static int64_t find_point(struct process *p, struct file **found, bool tell)
{
    struct model m = {0};
    int64_t point = -1;
    int same = 0;
    bool ok[KEYS];

    for (int k = 0; k < KEYS; k++)
        same += ok[k] = found[k] == NULL;
    size_t last = p->op_count;
    for (size_t i = 0; i <= last; i++) {
        uint64_t seq = i == 0 ? 0 : p->ops[i - 1].seq;
        if (i > 0)
            model_apply(&m, p, &p->ops[i - 1]);
        // Names of one file change together, so all keys are looked at, but only where it can
        // matter.
        if (seq < p->acknowledged && i < last && p->ops[i].seq <= p->acknowledged)
            continue;
        same = 0;
        for (int k = 0; k < KEYS; k++)
            same += ok[k] = is_same(m.keys[k], found[k]);
        if (same == KEYS && seq >= p->acknowledged)
            point = (int64_t)seq;
        if (tell && seq >= p->acknowledged && (KEYS - same) <= 3) {
            char when[64];
            snprintf(when, sizeof(when), "after operation %llu", (unsigned long long)seq);
            explain(p, &m, found, when);
        }
    }
    for (int k = 0; k < KEYS; k++)
        file_drop(&m.keys[k]);
    return point;
}

static int verify_process(struct process *p, uint64_t *total, uint64_t *lost)
{
    struct file *found[KEYS];
    uint64_t tried = p->op_count ? p->ops[p->op_count - 1].seq : 0;

    for (int k = 0; k < KEYS; k++)
        found[k] = read_key(p, k);
    int64_t point = find_point(p, found, false);
    if (point < 0) {
        fprintf(stderr,
                "writers: process %d: no moment of its history, operations %llu (acknowledged) to "
                "%llu (tried), is what is there:\n",
                p->number, (unsigned long long)p->acknowledged, (unsigned long long)tried);
        find_point(p, found, true);
        for (size_t i = 0; i < p->op_count; i++)
            if (p->ops[i].seq + 20 > p->acknowledged)
                fprintf(stderr, "  operation %llu: kind %d, key %d, other %d, at %llu, size %llu\n",
                        (unsigned long long)p->ops[i].seq, p->ops[i].kind, p->ops[i].key,
                        p->ops[i].other, (unsigned long long)p->ops[i].at,
                        (unsigned long long)p->ops[i].size);
        return 1;
    }
    *total += p->op_count;
    for (size_t i = 0; i < p->op_count; i++)
        *lost += p->ops[i].seq > (uint64_t)point;
    journal_cut(p, (uint64_t)point);
    for (int k = 0; k < KEYS; k++) {
        if (found[k])
            found[k]->names = 1;
        file_drop(&found[k]);
    }
    return 0;
}

// Nothing is there that nobody made.
static int verify_listing(const char *path)
{
    DIR *dir = opendir(path);
    int bad = 0, number, key;
    char end;

    if (!dir)
        return 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.' || sscanf(e->d_name, "p%d-k%2d%c", &number, &key, &end) == 2)
            continue;
        fprintf(stderr, "writers: %s/%s was never made\n", path, e->d_name);
        bad = 1;
    }
    closedir(dir);
    return bad;
}

static int verify(char **argv)
{
    int count = (int)strtol(argv[4], NULL, 10), bad = 0;
    uint64_t total = 0, lost = 0;

    for (int i = 0; i < count; i++) {
        struct process p;
        process_init(&p, i, argv);
        bad |= verify_process(&p, &total, &lost);
        bad |= verify_listing(p.directory);
        close(p.journal);
        free(p.ops);
    }
    printf("%llu operations in the journals, %llu unacknowledged ones lost\n",
           (unsigned long long)total, (unsigned long long)lost);
    return bad;
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "run") == 0)
        return run(argc, argv);
    if (argc == 6 && strcmp(argv[1], "verify") == 0)
        return verify(argv);
    fprintf(stderr, "usage: writers run|verify DIRECTORY JOURNALS PROCESSES SEED [MIX]\n");
    return 2;
}
