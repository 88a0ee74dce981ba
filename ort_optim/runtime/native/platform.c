#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <intrin.h>
#include <malloc.h>
#else
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif

#include <string.h>

#include "platform.h"

enum { HUGE_PAGE_BYTES = 2 << 20, HUGE_FROM_BYTES = 4 << 20 };

#ifdef _WIN32

static SRWLOCK shared = SRWLOCK_INIT;
void lock_shared(void) {
    AcquireSRWLockExclusive(&shared);
}
void unlock_shared(void) {
    ReleaseSRWLockExclusive(&shared);
}

void *take_memory(size_t bytes) {
    return _aligned_malloc(bytes ? bytes : 1, LINE_BYTES);
}
void free_memory(void *memory) {
    _aligned_free(memory);
}

int64_t now_ns(void) {
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    int64_t seconds = ticks.QuadPart / per_second.QuadPart;
    int64_t rest = ticks.QuadPart % per_second.QuadPart;
    return seconds * 1000000000 + rest * 1000000000 / per_second.QuadPart;
}

void relax_cpu(void) {
    YieldProcessor();
}
void yield_thread(void) {
    SwitchToThread();
}

/* Whoever may write the file is decided by the folder, which Python checks. */
const char *map_code(const char *path, mapping *found) {
    wchar_t wide[32768];
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, 32768))
        return "has a name that is no UTF-8";
    HANDLE file =
        CreateFileW(wide, GENERIC_READ | GENERIC_EXECUTE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                    OPEN_EXISTING, FILE_FLAG_OPEN_REPARSE_POINT, NULL);
    if (file == INVALID_HANDLE_VALUE) return "can't be opened";
    const char *wrong = NULL;
    HANDLE section = NULL;
    BY_HANDLE_FILE_INFORMATION about;
    if (!GetFileInformationByHandle(file, &about))
        wrong = "can't be looked at";
    else if (about.dwFileAttributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT))
        wrong = "is no regular file";
    else if (!(section = CreateFileMappingW(file, NULL, PAGE_EXECUTE_READ, 0, 0, NULL)))
        wrong = "can't be mapped for execution";
    if (!wrong) {
        found->bytes = (int64_t)(((uint64_t)about.nFileSizeHigh << 32) | about.nFileSizeLow);
        found->device = about.dwVolumeSerialNumber;
        found->inode = ((uint64_t)about.nFileIndexHigh << 32) | about.nFileIndexLow;
        found->start = MapViewOfFile(section, FILE_MAP_READ | FILE_MAP_EXECUTE, 0, 0, 0);
        if (!found->start) wrong = "can't be mapped for execution";
    }
    if (section) CloseHandle(section);
    CloseHandle(file);
    return wrong;
}

void unmap_code(mapping *code) {
    UnmapViewOfFile(code->start);
}

#else

static pthread_mutex_t shared = PTHREAD_MUTEX_INITIALIZER;
void lock_shared(void) {
    pthread_mutex_lock(&shared);
}
void unlock_shared(void) {
    pthread_mutex_unlock(&shared);
}

void *take_memory(size_t bytes) {
    void *memory = NULL;
    bool is_large = bytes >= HUGE_FROM_BYTES;
    if (posix_memalign(&memory, is_large ? HUGE_PAGE_BYTES : LINE_BYTES, bytes ? bytes : 1))
        return NULL;
#ifdef MADV_HUGEPAGE
    if (is_large)
        madvise(memory, bytes, MADV_HUGEPAGE); /* a wish: where refused, pages are small */
#endif
    return memory;
}

void free_memory(void *memory) {
    free(memory);
}

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void relax_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

void yield_thread(void) {
    sched_yield();
}

static const char *map_open_file(int file, mapping *found) {
    struct stat about;
    if (fstat(file, &about)) return "can't be looked at";
    if (!S_ISREG(about.st_mode)) return "is no regular file";
    if (about.st_uid != geteuid()) return "belongs to another user";
    if (about.st_mode & (S_IWGRP | S_IWOTH)) return "may be written by others";
    if (about.st_size <= 0) return "is empty";
    void *start = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
    if (start == MAP_FAILED) return "can't be mapped for execution";
    found->start = start;
    found->bytes = (int64_t)about.st_size;
    found->device = (uint64_t)about.st_dev;
    found->inode = (uint64_t)about.st_ino;
    return NULL;
}

const char *map_code(const char *path, mapping *found) {
    /* O_NONBLOCK: a pipe in the file's place must not make us wait */
    int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return "can't be opened";
    const char *wrong = map_open_file(file, found);
    close(file);
    return wrong;
}

void unmap_code(mapping *code) {
    munmap((void *)code->start, (size_t)code->bytes);
}

#endif
