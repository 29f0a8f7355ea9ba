// SPDX-License-Identifier: MIT
// The daemon's messages. A disk that fails can fail a million times: no more than MESSAGES_MAX go
// out in PERIOD_S seconds, and the next one that may go says how many did not.

#include <stdio.h>
#include <syslog.h>
#include <time.h>

#include "base/lock.h"
#include "mountutil/mount_message.h"

#define MESSAGES_MAX 20u
#define PERIOD_S     10
#define HELD_MAX     8u

static struct af_mutex lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;
// Guarded by lock:
static bool settled, ready, to_syslog;
static struct {
    enum message_level level;
    char text[1024];
} held[HELD_MAX]; // while not settled; what comes beyond is dropped
static unsigned held_count;
static time_t period_start;
static unsigned sent_count, dropped_count;

static void init(void)
{
    af_mutex_init(&lock, LOCK_RANK_LOG);
}

static void put(enum message_level level, const char *text)
{
    static const int priorities[] = {
        [MESSAGE_ERROR] = LOG_ERR, [MESSAGE_WARNING] = LOG_WARNING, [MESSAGE_INFO] = LOG_INFO};

    if (to_syslog)
        syslog(priorities[level], "%s", text);
    else
        fprintf(stderr, "aerofs: %s\n", text);
}

static void hold(enum message_level level, const char *text)
{
    if (held_count == HELD_MAX)
        return;
    held[held_count].level = level;
    snprintf(held[held_count].text, sizeof(held[0].text), "%s", text); // a cut sentence still tells
    held_count++;
}

static void emit(void *arg, enum message_level level, const char *text)
{
    struct timespec now;

    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    af_lock(&lock);
    if (!settled || (level == MESSAGE_INFO && !ready)) {
        if (level != MESSAGE_INFO)
            hold(level, text);
        af_unlock(&lock);
        return;
    }
    if (period_start == 0 || now.tv_sec - period_start >= PERIOD_S) {
        period_start = now.tv_sec;
        sent_count = 0;
    }
    if (sent_count >= MESSAGES_MAX) {
        dropped_count++;
    } else {
        if (dropped_count) {
            char dropped[64];
            snprintf(dropped, sizeof(dropped), "(%u messages were left out)", dropped_count);
            put(MESSAGE_WARNING, dropped);
            dropped_count = 0;
        }
        sent_count++;
        put(level, text);
    }
    af_unlock(&lock);
}

struct message_sink mount_message_sink(void)
{
    pthread_once(&once, init);
    return (struct message_sink){.emit = emit};
}

void mount_message_opened(bool opened)
{
    af_lock(&lock);
    for (unsigned i = 0; opened && i < held_count; i++)
        put(held[i].level, held[i].text);
    held_count = 0;
    settled = true;
    af_unlock(&lock);
}

void mount_message_ready(bool background)
{
    if (background)
        openlog("aerofs", LOG_PID, LOG_DAEMON);
    af_lock(&lock);
    ready = true;
    to_syslog = background;
    af_unlock(&lock);
}
