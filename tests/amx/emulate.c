/* AMX for processors without it: each of its instructions raises SIGILL there, and is done here
 * as Intel's manual (Software Developer's Manual, volume 2, "TDPBF16PS" and others) says.
 *
 * So the machine code of the compiler is tested, not a model of it. Whoever loads this library
 * calls emulate(1) to begin and emulate(0) to end; executed() counts instructions by their kind. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
static const int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};

typedef struct {
    uint8_t rows, configured;
    uint16_t bytes;
    uint8_t data[16][64];
} Tile;

static __thread Tile tiles[8];
static __thread int ready;
static struct sigaction before;
static uint64_t done[4]; /* configurations, loads, stores, products */

static float half(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return fpclassify(value) == FP_SUBNORMAL ? 0.0f : value;
}

static int configure(const uint8_t *from) {
    memset(tiles, 0, sizeof tiles);
    ready = 0;
    if (from[0] == 0) return 1;
    if (from[0] != 1 || from[1]) return 0;
    for (int t = 0; t < 8; t++) {
        uint16_t bytes = (uint16_t)(from[16 + 2 * t] | from[17 + 2 * t] << 8);
        uint8_t rows = from[48 + t];
        if (rows > 16 || bytes > 64 || (rows == 0) != (bytes == 0)) return 0;
        tiles[t].rows = rows, tiles[t].bytes = bytes, tiles[t].configured = rows > 0;
    }
    ready = 1;
    return 1;
}

static int multiply(int opcode, int prefix, Tile *c, const Tile *a, const Tile *b) {
    if (!ready || !c->configured || !a->configured || !b->configured) return 0;
    if (c->rows != a->rows || c->bytes != b->bytes || a->bytes % 4 || a->bytes / 4 != b->rows)
        return 0;
    for (int m = 0; m < c->rows; m++)
        for (int k = 0; k < a->bytes / 4; k++)
            for (int n = 0; n < c->bytes / 4; n++) {
                if (opcode == 0x5c && prefix == 2) {
                    uint16_t x[2], y[2];
                    float sum;
                    memcpy(x, &a->data[m][4 * k], 4), memcpy(y, &b->data[k][4 * n], 4);
                    memcpy(&sum, &c->data[m][4 * n], 4);
                    sum = fmaf(half(x[0]), half(y[0]), sum);
                    sum = fmaf(half(x[1]), half(y[1]), sum);
                    memcpy(&c->data[m][4 * n], &sum, 4);
                } else if (opcode == 0x5e && prefix == 1) { /* unsigned by signed */
                    int32_t sum;
                    memcpy(&sum, &c->data[m][4 * n], 4);
                    for (int i = 0; i < 4; i++)
                        sum += (int32_t)a->data[m][4 * k + i] * (int8_t)b->data[k][4 * n + i];
                    memcpy(&c->data[m][4 * n], &sum, 4);
                } else
                    return 0;
            }
    return 1;
}

/* Where the operand in memory is; *stride is what its index is worth. *length counts its bytes. */
static uint8_t *address(const uint8_t *at, const greg_t *regs, int rex_b, int rex_x,
                        int64_t *stride, int *length) {
    int mod = at[0] >> 6, rm = at[0] & 7;
    int64_t base = 0, displacement = 0;
    *stride = 0, *length = 1;
    if (rm == 4) {
        int scale = at[1] >> 6, index = (at[1] >> 3 & 7) | rex_x << 3, low = at[1] & 7;
        *length = 2;
        if (index != 4) *stride = regs[registers[index]] << scale;
        if (low == 5 && mod == 0) {
            int32_t d;
            memcpy(&d, at + 2, 4), *length += 4, displacement = d;
        } else
            base = regs[registers[low | rex_b << 3]];
    } else if (mod == 0 && rm == 5) { /* relative to the next instruction */
        int32_t d;
        memcpy(&d, at + 1, 4), *length += 4;
        return (uint8_t *)at + *length + d;
    } else
        base = regs[registers[rm | rex_b << 3]];
    if (mod == 1)
        displacement = (int8_t)at[*length], *length += 1;
    else if (mod == 2) {
        int32_t d;
        memcpy(&d, at + *length, 4), *length += 4, displacement = d;
    }
    return (uint8_t *)(base + displacement);
}

static int run(ucontext_t *context) {
    greg_t *regs = context->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)regs[REG_RIP];
    if (at[0] != 0xc4 || (at[1] & 31) != 2 || at[2] & 0x84) return 0; /* VEX.128.0F38.W0 */
    int prefix = at[2] & 3, other = ~(at[2] >> 3) & 15, opcode = at[3], mod = at[4] >> 6;
    int reg = at[4] >> 3 & 7, rm = at[4] & 7, length = 1, good = 1;
    int rex_x = !(at[1] & 0x40), rex_b = !(at[1] & 0x20);
    int64_t stride = 0;
    uint8_t *memory = mod == 3 ? 0 : address(at + 4, regs, rex_b, rex_x, &stride, &length);
    if (opcode == 0x49 && mod == 3 && prefix == 0)
        memset(tiles, 0, sizeof tiles), ready = 0;
    else if (opcode == 0x49 && mod == 3 && prefix == 3)
        good = ready && tiles[reg].configured, memset(tiles[reg].data, 0, 1024);
    else if (opcode == 0x49 && mod != 3 && prefix == 0)
        good = configure(memory), __sync_fetch_and_add(&done[0], 1);
    else if (opcode == 0x4b && mod != 3 && (prefix == 3 || prefix == 1)) {
        good = ready && tiles[reg].configured && rm == 4;
        memset(tiles[reg].data, 0, 1024);
        for (int r = 0; good && r < tiles[reg].rows; r++)
            memcpy(tiles[reg].data[r], memory + r * stride, tiles[reg].bytes);
        __sync_fetch_and_add(&done[1], 1);
    } else if (opcode == 0x4b && mod != 3 && prefix == 2) {
        good = ready && tiles[reg].configured && rm == 4;
        for (int r = 0; good && r < tiles[reg].rows; r++)
            memcpy(memory + r * stride, tiles[reg].data[r], tiles[reg].bytes);
        __sync_fetch_and_add(&done[2], 1);
    } else if (mod == 3 && (opcode == 0x5c || opcode == 0x5e)) {
        good = other < 8 && multiply(opcode, prefix, &tiles[reg], &tiles[rm], &tiles[other]);
        __sync_fetch_and_add(&done[3], 1);
    } else
        return 0;
    regs[REG_RIP] += 4 + length;
    return good;
}

static void trapped(int number, siginfo_t *info, void *context) {
    if (run(context)) return;
    (void)number, (void)info;
    sigaction(SIGILL, &before, 0); /* whoever looked for it before is told, at the same place */
}

void emulate(int on) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (on)
        sigaction(SIGILL, &action, &before);
    else
        sigaction(SIGILL, &before, 0);
}

uint64_t executed(int kind) { return done[kind]; }
